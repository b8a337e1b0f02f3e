// A connection to a Ganvas performance for any page: no library, no build step.
//
//   const live = new GanvasLive({ model: "emoji", performance: "mine", onFrame: (bitmap) => ... });
//   live.say({ seed: 7, psi: 0.8, sliders: { rust: 1.5 } });
//
// What is said is merged until the next animation frame, and sent as one message. Of the frames that come while one is
// decoded only the newest is kept. A lost connection is opened again, and told all that was said.

class GanvasLive {
  // key: of a studio that others can reach. watch: the name of a performance to look at, in place of playing one.
  constructor({ studio = "http://127.0.0.1:8000", model, performance, watch, key, onFrame, onTold, onState }) {
    const name = watch ? `?watch=${encodeURIComponent(watch)}` : performance ? `?performance=${encodeURIComponent(performance)}` : "";
    this.url = `${studio.replace(/^http/, "ws").replace(/\/$/, "")}/v1/models/${encodeURIComponent(model)}/live${name}`;
    // A page can set no header on a websocket; this is where the key goes, and never into the URL.
    this.protocols = key ? ["ganvas", `key.${key}`] : ["ganvas"];
    this.onFrame = onFrame ?? (() => {});
    this.onTold = onTold ?? (() => {}); // {id, passes} before a frame, or {error}
    this.onState = onState ?? (() => {}); // "connecting", "open", or why it is closed
    this.said = {};
    this.news = null;
    this.ended = false;
    this.connect();
  }

  say(message) {
    this.said = mergePatch(this.said, message);
    this.news = mergePatch(this.news ?? {}, message, true);
    if (!this.asked) this.asked = setTimeout(() => this.send(), 8); // twice as often as frames come
  }

  close() {
    this.ended = true;
    clearTimeout(this.asked);
    clearTimeout(this.again);
    this.socket.close();
  }

  connect() {
    this.onState("connecting");
    this.socket = new WebSocket(this.url, this.protocols);
    this.socket.binaryType = "blob";
    this.socket.onopen = () => {
      this.onState("open");
      this.news = this.said;
      this.send();
    };
    this.socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.onTold(JSON.parse(data));
      else this.decode(data);
    };
    this.socket.onclose = ({ code, reason }) => {
      // Why a studio refused is kept from pages; 1006 is all that they are told.
      const unsaid = code === 1006 ? "no studio there, or one that this page may not use" : `closed (${code})`;
      this.onState(reason || unsaid);
      if (!this.ended) this.again = setTimeout(() => this.connect(), 1000);
    };
  }

  send() {
    this.asked = null;
    if (this.news && this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(this.news));
      this.news = null;
    }
  }

  async decode(blob) {
    this.newest = blob;
    if (this.decoding) return;
    this.decoding = true;
    while (this.newest) {
      const next = this.newest;
      this.newest = null;
      try {
        this.onFrame(await createImageBitmap(next), next);
      } catch (error) {
        this.onTold({ error: { message: String(error) } });
      }
    }
    this.decoding = false;
  }
}

// RFC 7396, as the studio merges. keepNulls: for a message, in which null takes away what was said before.
function mergePatch(before, change, keepNulls = false) {
  const merged = { ...before };
  for (const [name, value] of Object.entries(change)) {
    if (value === null && !keepNulls) delete merged[name];
    else if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      const known = merged[name];
      const isObject = known !== null && typeof known === "object" && !Array.isArray(known);
      merged[name] = mergePatch(isObject ? known : {}, value, keepNulls);
    } else merged[name] = value;
  }
  return merged;
}

globalThis.GanvasLive = GanvasLive;
