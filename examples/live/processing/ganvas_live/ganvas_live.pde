// Plays a Ganvas model live, in stock Processing 4: no library is needed.
//
//   left to right    truncation psi, from the typical picture to wild ones
//   click            another seed
//   SPACE            watch what others play, and back
//
// Start the studio first: ganvas up

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.AtomicReference;
import javax.imageio.ImageIO;
import java.awt.image.BufferedImage;

final String STUDIO = "ws://127.0.0.1:8000";
final String MODEL = "emoji";
final String PERFORMANCE = "processing";  // others watch it under this name

Live live;
PImage picture;
int seed = 1;
String said = "";
boolean watches = false;

void setup() {
  size(512, 512);
  frameRate(60);
  live = new Live("?performance=" + PERFORMANCE);
}

void draw() {
  float psi = constrain(map(mouseX, 0, width, 0, 1.2), 0, 1.2);
  // Processing decodes JPEG, not WebP. The decimal point shall not depend on the country.
  String message = String.format(java.util.Locale.ROOT, "{\"seed\": %d, \"psi\": %.3f, \"format\": \"jpeg\"}", seed, psi);
  if (watches) message = "{\"format\": \"jpeg\"}";
  if (!message.equals(said) && live.say(message)) said = message;

  BufferedImage frame = live.frames.getAndSet(null);  // the newest; those it overtook are gone
  if (frame != null) {
    if (picture == null || picture.width != frame.getWidth()) {
      picture = createImage(frame.getWidth(), frame.getHeight(), RGB);
    }
    picture.loadPixels();
    frame.getRGB(0, 0, picture.width, picture.height, picture.pixels, 0, picture.width);
    picture.updatePixels();
  }
  background(0);
  if (picture != null) image(picture, 0, 0, width, height);
  if (live.trouble != null) {
    fill(255);
    text(live.trouble, 16, height - 40, width - 32, 40);
  }
}

void mousePressed() {
  seed = (int) random(1 << 24);
}

void keyPressed() {
  if (key == ' ') {
    watches = !watches;
    said = "";
    live.close();
    live = new Live((watches ? "?watch=" : "?performance=") + PERFORMANCE);
  }
}

// One connection. Frames come in threads of their own, so draw() never waits.
class Live implements WebSocket.Listener {
  final AtomicReference<BufferedImage> frames = new AtomicReference<BufferedImage>();
  volatile String trouble = "connecting ...";
  volatile WebSocket socket;
  volatile boolean sending = false;
  private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
  private final StringBuilder letters = new StringBuilder();

  Live(String query) {
    // A studio elsewhere wants a key: .header("Authorization", "Bearer gnv_...")
    HttpClient.newHttpClient().newWebSocketBuilder()
      .buildAsync(URI.create(STUDIO + "/v1/models/" + MODEL + "/live" + query), this)
      .exceptionally(error -> {
        trouble = "no studio: " + error.getMessage();
        return null;
      });
  }

  // False while the message before is still on its way: then say it with the next frame.
  boolean say(String message) {
    WebSocket to = socket;
    if (to == null || sending) return false;
    sending = true;
    to.sendText(message, true).whenComplete((done, error) -> sending = false);
    return true;
  }

  void close() {
    WebSocket to = socket;
    if (to != null) to.abort();
  }

  public void onOpen(WebSocket opened) {
    socket = opened;
    trouble = null;
    opened.request(1);
  }

  public CompletionStage<?> onBinary(WebSocket from, ByteBuffer part, boolean last) {
    byte[] some = new byte[part.remaining()];
    part.get(some);
    bytes.write(some, 0, some.length);
    if (last) {
      try {
        frames.set(ImageIO.read(new ByteArrayInputStream(bytes.toByteArray())));
        trouble = null;
      }
      catch (java.io.IOException error) {
        trouble = error.getMessage();
      }
      bytes.reset();
    }
    from.request(1);
    return null;
  }

  public CompletionStage<?> onText(WebSocket from, CharSequence part, boolean last) {
    letters.append(part);
    if (last) {
      trouble = letters.toString();  // without ids all texts are errors
      letters.setLength(0);
    }
    from.request(1);
    return null;
  }

  public CompletionStage<?> onClose(WebSocket from, int code, String reason) {
    trouble = code + " " + reason;
    return null;
  }

  public void onError(WebSocket from, Throwable error) {
    trouble = error.getMessage();
  }
}
