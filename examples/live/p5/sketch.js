// A p5 sketch that plays a model: the mouse morphs between two seeds, a click takes two others.

let live;
let frame = null; // an ImageBitmap
let seeds = [1, 2];

function setup() {
  createCanvas(512, 512);
  live = new GanvasLive({
    model: "emoji",
    performance: "p5",
    onFrame: (bitmap) => {
      frame?.close();
      frame = bitmap;
    },
    onTold: ({ error }) => { if (error) print(error.message); },
    onState: print,
  });
}

function draw() {
  background(0);
  drawingContext.imageSmoothingEnabled = false; // squares, as the model paints them
  if (frame) drawingContext.drawImage(frame, 0, 0, width, height);
}

function mouseMoved() {
  const [first, second] = seeds.map((seed) => ({ seed, truncation_psi: 1 }));
  const amount = constrain(mouseX / width, 0, 1);
  live.say({ truncation_psi: constrain(1 - mouseY / height, 0, 1), cross: { first, second, amount } });
}

function mousePressed() {
  seeds = [floor(random(2 ** 32)), floor(random(2 ** 32))];
  mouseMoved();
}
