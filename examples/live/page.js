// The page: what is moved is said, what comes is drawn.

const by = (id) => document.getElementById(id);
const canvas = by("picture");
const drawn = canvas.getContext("2d");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const fields = ["studio", "model", "performance", "names", "watch"]; // kept in the page's address; a key never is
let live = null;
let frames = 0;
let drifting = null;

function connect() {
  live?.close();
  by("trouble").textContent = "";
  const name = by("performance").value;
  live = new GanvasLive({
    studio: by("studio").value,
    model: by("model").value,
    key: by("key").value || undefined,
    [by("watch").checked ? "watch" : "performance"]: name,
    onFrame: draw,
    onTold: ({ error }) => { if (error) by("trouble").textContent = error.message; },
    onState: (state) => { by("state").textContent = `${by("model").value}: ${state}`; },
  });
  if (!by("watch").checked) sayAll();
}

function draw(bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  drawn.drawImage(bitmap, 0, 0);
  bitmap.close();
  frames += 1;
}

// A point for each seed, and how far from the one to the other; at 0 the seed alone, which takes prompts too.
function sayAll() {
  by("trouble").textContent = "";
  const psi = Number(by("psi").value);
  const [seed, toward, amount] = ["seed", "toward", "amount"].map((id) => Number(by(id).value));
  const prompt = by("prompt").value || null;
  const cross = amount === 0 || prompt ? null
    : { first: { seed, truncation_psi: 1 }, second: { seed: toward, truncation_psi: 1 }, amount };
  const sliders = {};
  for (const input of by("sliders").querySelectorAll("input")) sliders[input.name] = Number(input.value);
  live?.say({ seed, truncation_psi: psi, prompt, cross, sliders });
  for (const output of document.querySelectorAll("output")) {
    output.value = Number(by(output.htmlFor.value).value).toFixed(2);
  }
  canvas.setAttribute("aria-label", `A picture of ${by("model").value}, seed ${seed}`);
}

function showSliders() {
  const names = by("names").value.split(",").map((name) => name.trim()).filter(Boolean);
  by("sliders").replaceChildren(...names.map((name, index) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "range", name, id: `slider${index}`, min: -3, max: 3, step: 0.05, value: 0,
    });
    const output = Object.assign(document.createElement("output"), { value: "0.00", ariaLive: "off" });
    output.htmlFor.value = input.id;
    label.append(name, input, output);
    return label;
  }));
}

function random() {
  for (const id of ["seed", "toward"]) by(id).value = Math.floor(Math.random() * 2 ** 32);
  sayAll();
}

// To the second seed and back in 8 seconds; for who wants no motion in eight steps, by hand.
function drift() {
  if (still.matches) {
    by("amount").value = (Number(by("amount").value) + 1 / 8) % 1.001;
    sayAll();
    return;
  }
  if (drifting) cancelAnimationFrame(drifting);
  by("drift").setAttribute("aria-pressed", String(!drifting));
  drifting = drifting ? null : requestAnimationFrame(step);
}

function step(now) {
  by("amount").value = (1 - Math.cos((now / 8000) * 2 * Math.PI)) / 2;
  sayAll();
  drifting = requestAnimationFrame(step);
}

const address = new URLSearchParams(location.search);
for (const id of fields) {
  if (address.has(id)) by(id)[by(id).type === "checkbox" ? "checked" : "value"] = address.get(id);
}
by("controls").addEventListener("input", (event) => {
  if (!fields.includes(event.target.id) && event.target.id !== "key" && !by("watch").checked) sayAll();
});
by("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  showSliders();
  for (const id of fields) address.set(id, by(id).type === "checkbox" ? (by(id).checked ? "1" : "") : by(id).value);
  history.replaceState(null, "", `?${address}`);
  connect();
});
by("random").addEventListener("click", random);
by("drift").addEventListener("click", drift);
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox])");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "r") random();
  if (event.key === "d") drift();
});
setInterval(() => {
  by("rate").textContent = `${frames} frames a second`;
  frames = 0;
}, 1000);
showSliders();
connect();
