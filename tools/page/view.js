// --------------------------------------------------------------- what the reader sees

const facts = JSON.parse(element("facts").textContent);
const tokenizer = new BPETokenizer(facts.tokenizer);
const model = new GPT(facts.config, read_safetensors(from_bytes(
  atob(element("weights").textContent),
)));
element("weights").remove(); // the text is no longer needed
const C = facts.config.context_length;
const END = tokenizer.special_tokens[facts.end]; // undefined if there is none
const reader = new Reader(model);

const tale = {
  n_prompt: 0, // so many of the ids are the beginning
  ids: [],
  drawn: new Map(), // index -> the probability and the random number of its draw
  logits: null, // after the last token, or null while it is being read
  generator: null,
  point: 0, // the next random number
  running: 0, // the number of the run under way, or 0
  began: null, // when that run began, and how long the text was
  ended: false,
  chosen: null, // the token whose attention is shown; null is the last
  pointed: null, // the token under the mouse, shown instead
  layer: Math.floor(facts.config.n_layers / 2),
  unsaid: "", // new text that a screen reader has not yet been given
};

function element(id) {
  return document.getElementById(id);
}

/** A new element with these properties. */
function make(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = p => {
  if (p === 0) return "0%";
  return p < 0.001 ? "<0.1%" : `${(100 * p).toFixed(1)}%`;
};
const counted = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const hue = id => (id * 137.508) % 360; // the golden angle: neighbors differ

/** The bytes of a token, each as two hexadecimal digits. */
function hexadecimal(id) {
  const bytes = [...tokenizer.decode_bytes([id])];
  return bytes.map(byte => byte.toString(16).padStart(2, "0")).join(" ");
}

/** A token as a reader can see it: what is no whole, visible character as its bytes. */
function shown(id) {
  const text = tokenizer.decode([id]);
  const odd = /[\ufffd\p{Cc}]/u.test(text.replace(/[\n\t]/g, ""));
  if (odd) return hexadecimal(id).toUpperCase();
  return text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}
const quoted = id => `“${shown(id)}”`;
const is_special = id => Object.values(tokenizer.special_tokens).includes(id);

// ------------------------------------------------------------------------- settings

const STEPS = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000].filter(
  k => k < tokenizer.n_vocab,
);
const SLIDERS = {
  temperature: { name: "Temperature", min: 0, max: 2, step: 0.05, value: 0.7,
    says: x => (x === 0 ? "0, greedy" : x.toFixed(2)) },
  top_k: { name: "Top-k", min: 0, max: STEPS.length, step: 1, value: STEPS.length,
    says: x => STEPS[x] ?? "off" },
  top_p: { name: "Top-p", min: 0.05, max: 1, step: 0.01, value: 1,
    says: x => (x === 1 ? "off" : x.toFixed(2)) },
  min_p: { name: "Min-p", min: 0, max: 1, step: 0.01, value: 0.1,
    says: x => (x === 0 ? "off" : x.toFixed(2)) },
};

function make_sliders() {
  for (const [id, { name, says, ...range }] of Object.entries(SLIDERS)) {
    const input = make("input", { id, type: "range", ...range });
    const output = make("output", { htmlFor: id });
    const say = () => {
      output.value = says(input.valueAsNumber);
      input.setAttribute("aria-valuetext", output.value);
    };
    input.addEventListener("input", () => { say(); show_next(); });
    say();
    const label = make("label", { htmlFor: id }, [name, output]);
    element("sliders").append(make("div", {}, [label, input]));
  }
}

/** What the sliders say, as arguments of next_token_distribution. */
function settings() {
  const { temperature, top_k, top_p, min_p } = Object.fromEntries(
    Object.keys(SLIDERS).map(id => [id, element(id).valueAsNumber]),
  );
  return { temperature, top_k: STEPS[top_k], top_p, min_p };
}

// -------------------------------------------------------------------- the next token

/** The distributions of the next token: the model's own, and the one to draw from.
 * cut_by: for each token that a setting left out, which one did. */
function next_token() {
  const logits = tale.logits.subarray(0, tokenizer.n_vocab);
  const { temperature, ...cuts } = settings();
  const before = next_token_distribution(logits);
  let probs = next_token_distribution(logits, { temperature });
  const cut_by = new Map();
  const applied = { temperature };
  for (const [name, value] of Object.entries(cuts)) {
    applied[name] = value;
    const after = next_token_distribution(logits, applied);
    probs.forEach((p, id) => {
      if (p > 0 && after[id] === 0) cut_by.set(id, name.replace("_", "-"));
    });
    probs = after;
  }
  return { before, probs, cut_by, token: draw(probs, temperature ? tale.point : 0) };
}

function show_next() {
  if (tale.logits === null) return;
  const next = next_token();
  show_bars(next);
  show_stick(next);
}

function show_bars({ before, probs, cut_by, token }) {
  const by_logit = (i, j) => tale.logits[j] - tale.logits[i];
  const best = [...before.keys()].sort(by_logit).slice(0, 10);
  if (!best.includes(token)) best[best.length - 1] = token;
  const longest = Math.max(...best.map(id => Math.max(before[id], probs[id])));
  const rows = best.map(id => {
    const bars = ["before", "after"].map((className, i) => make("i", {
      className, style: `width: ${(100 * [before, probs][i][id]) / longest}%`,
    }));
    const after = cut_by.has(id) ? `cut: ${cut_by.get(id)}` : percent(probs[id]);
    const row = make("tr", {}, [
      make("td", { textContent: shown(id) }),
      make("td", {}, [make("div", { className: "bar" }, bars)]),
      make("td", { className: "number", textContent: percent(before[id]) }),
      make("td", { className: "number", textContent: after }),
    ]);
    row.classList.toggle("cut", probs[id] === 0);
    row.classList.toggle("hit", id === token);
    return row;
  });
  element("bars").tBodies[0].replaceChildren(...rows);
  const left = probs.reduce((n, p) => n + (p > 0), 0);
  const covered = best.reduce((sum, id) => sum + before[id], 0);
  const others = tokenizer.n_vocab - best.length;
  element("rest").textContent =
    `The model gives ${percent(Math.max(0, 1 - covered))} to the other ` +
    `${counted(others, "token")}. ${counted(left, "token")} can be drawn now. ` +
    "◂ marks the one that comes next.";
}

/** The stick of the draw. Neighbors that are too thin to see share a piece. */
function show_stick({ probs, token }) {
  const width = element("stick").clientWidth;
  const pieces = [];
  let thin = 0;
  const add_thin = () => {
    if (thin > 0) pieces.push(piece(thin, "others"));
    thin = 0;
  };
  const piece = (p, className) =>
    make("span", { className, style: `width: ${100 * p}%` });
  let edge = 0;
  let [from, to] = [0, 0];
  probs.forEach((p, id) => {
    edge += p;
    if (id === token) [from, to] = [edge - p, edge];
    if (p < 0.004 && id !== token) {
      thin += p;
      return;
    }
    add_thin();
    const one = piece(p, id === token ? "hit" : "");
    one.style.setProperty("--hue", hue(id));
    one.classList.toggle("thin", p * width < 6);
    if (p * width > 8 * shown(id).length + 8) one.textContent = shown(id);
    pieces.push(one);
  });
  add_thin();
  const greedy = settings().temperature === 0;
  if (!greedy) pieces.push(make("b", { style: `left: ${100 * tale.point}%` }));
  element("stick").replaceChildren(...pieces);
  element("drawn").textContent = greedy
    ? `Temperature 0 draws nothing. The likeliest token, ${quoted(token)}, comes next.`
    : `The random number ${tale.point.toFixed(4)} falls on ${quoted(token)}, whose ` +
      `stretch goes from ${from.toFixed(4)} to ${to.toFixed(4)}.`;
}

// ------------------------------------------------------------- the text and its tokens

/** The index of the token whose attention is shown. */
function chosen() {
  const index = tale.pointed ?? tale.chosen ?? tale.ids.length - 1;
  return Math.max(reader.start, index);
}

function show_text() {
  const prompt = element("prompt").value;
  const end = tale.ended ? "  — the end" : "";
  element("story-prompt").textContent = prompt.toWellFormed();
  const new_ids = tale.ids.slice(tale.n_prompt);
  element("story-new").textContent = tokenizer.decode(new_ids, true);
  element("story-end").textContent = end;
  if (tale.drawn.size) element("story").scrollTop = element("story").scrollHeight;
  const used = tale.ids.length - reader.start;
  element("context").max = C;
  element("context").value = used;
  element("context-words").textContent = `Context: ${used} of ${C} positions`;
  element("context-note").textContent = reader.start === 0
    ? `When all ${C} are taken, the model forgets the oldest half and reads the rest ` +
      "again."
    : `The first ${counted(reader.start, "token")}, pale above, no longer fit. The ` +
      "model has forgotten them and read the rest again.";
  for (const id of ["step", "run"]) {
    const done = tale.ended || tale.ids.length === 0;
    element(id).setAttribute("aria-disabled", done);
  }
  element("run").textContent = tale.running ? "Stop" : "Run";
}

function show_tokens() {
  const list = element("tokens");
  let same = 0; // chips at the front that stay as they are
  while (same < tale.ids.length && Number(list.children[same]?.dataset.id)
    === tale.ids[same]) same++;
  while (list.children.length > same) list.lastChild.remove();
  tale.ids.slice(same).forEach((id, i) => {
    const text = make("span", { textContent: shown(id) });
    const chip = make("div", { className: "token", id: `token-${same + i}` }, [
      text, make("small", { textContent: id }),
    ]);
    chip.dataset.id = id;
    chip.setAttribute("role", "option");
    chip.style.setProperty("--hue", hue(id));
    chip.classList.toggle("special", is_special(id));
    list.append(chip);
  });
  if (same < tale.ids.length) list.scrollTop = list.scrollHeight;
}

function show_choice() {
  const list = element("tokens");
  const at = chosen();
  [...list.children].forEach((chip, i) => {
    chip.classList.toggle("forgotten", i < reader.start);
    chip.setAttribute("aria-selected", i === at);
  });
  if (at < 0) {
    element("about-token").textContent = "";
    return;
  }
  list.setAttribute("aria-activedescendant", `token-${at}`);
  const id = tale.ids[at];
  const n_bytes = tokenizer.decode_bytes([id]).length;
  const about = [
    `${quoted(id)} is token number ${id}, at position ${at - reader.start}.`,
    id === END
      ? "It stands before each tale. When the model draws it, the tale ends."
      : `Its ${counted(n_bytes, "byte")}: ${hexadecimal(id)}.`,
  ];
  if (tale.drawn.has(at)) {
    const { p, point } = tale.drawn.get(at);
    const by = point === null ? "" : ` by the random number ${point.toFixed(4)}`;
    about.push(`It was drawn with probability ${percent(p)}${by}.`);
  }
  element("about-token").textContent = about.join(" ");
  show_vectors(id, at - reader.start);
}

/** The colors of numbers above and below 0, from the style sheet: red, green, blue. */
const colors = {};
function read_colors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["heat", "minus"]) {
    colors[name] = style.getPropertyValue(`--${name}`).trim().split(" ").map(Number);
  }
}

/** The vectors that enter the first layer, a field for each feature. */
function show_vectors(id, position) {
  const D = model.config.d_model;
  const rows = { token: model.tokens.weight.subarray(id * D, (id + 1) * D) };
  if (model.positions) {
    rows.position = model.positions.subarray(position * D, (position + 1) * D);
    rows.sum = rows.token.map((value, i) => value + rows.position[i]);
  }
  const drawings = Object.entries(rows).flatMap(([name, vector]) => {
    const canvas = make("canvas", { width: D, height: 1 });
    canvas.setAttribute("aria-hidden", "true");
    const highest = Math.max(...vector.map(Math.abs)) || 1;
    paint(canvas, vector.map(value => value / highest));
    return [make("span", { textContent: name }), canvas];
  });
  element("vectors").replaceChildren(...drawings);
}

/** Fill a canvas with a field for each number from -1 to 1, row by row. */
function paint(canvas, numbers) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  numbers.forEach((number, i) => {
    const [red, green, blue] = number < 0 ? colors.minus : colors.heat;
    image.data[4 * i] = red;
    image.data[4 * i + 1] = green;
    image.data[4 * i + 2] = blue;
    image.data[4 * i + 3] = 255 * Math.abs(number);
  });
  context.putImageData(image, 0, 0);
}

// ------------------------------------------------------------------------ attention

const shade = weight => Math.sqrt(weight); // so that a few percent can be seen

/** A token as a part of running text. */
function in_text(id) {
  if (is_special(id)) return "⟨start⟩";
  return /[·↵⇥]/.test(shown(id)) ? tokenizer.decode([id]) : shown(id);
}

let heads = []; // of the layer shown: a row of weights for each token

function compute_attention() {
  const layer = model.blocks[tale.layer].attention;
  heads = layer.pattern(reader.cache.layers[tale.layer], reader.cache.length);
}

function show_maps() {
  const T = reader.cache.length;
  heads.forEach((rows, h) => {
    const canvas = element("heads").children[h].querySelector("canvas");
    canvas.width = canvas.height = T;
    const fields = new Float32Array(T * T); // 0 where a token cannot look
    rows.forEach((row, t) => fields.set(row.map(shade), t * T));
    paint(canvas, fields);
  });
  show_rows();
}

/** For the chosen token: its row in each heat map, and the text shaded by it. */
function show_rows() {
  const at = chosen() - reader.start;
  const T = reader.cache.length;
  if (at < 0 || at >= T) return;
  const ids = tale.ids.slice(reader.start);
  const heat = colors.heat.join(" ");
  element("looking").textContent = `How ${quoted(ids[at])} looks at the text:`;
  heads.forEach((rows, h) => {
    const figure = element("heads").children[h];
    const mark = figure.querySelector("i");
    mark.style.top = `${(100 * at) / T}%`;
    mark.style.height = `${100 / T}%`;
    const row = rows[at];
    const spans = [...row].map((weight, s) => make("span", {
      textContent: in_text(ids[s]),
      title: percent(weight),
      className: s === at ? "query" : "", // the one that looks
      style: `background: rgb(${heat} / ${shade(weight)})`,
    }));
    const shaded = figure.querySelector(".shaded");
    shaded.replaceChildren(...spans);
    shaded.scrollTop = shaded.scrollHeight;
    const most = [...row.keys()].sort((i, j) => row[j] - row[i]).slice(0, 3);
    const words = most.map(s => `${quoted(ids[s])} ${percent(row[s])}`).join(", ");
    figure.querySelector(".map").setAttribute(
      "aria-label", `Head ${h + 1}: ${quoted(ids[at])} looks most at ${words}`,
    );
  });
}

function make_heads() {
  for (let h = 0; h < model.config.n_heads; h++) {
    const map = make("div", { className: "map" }, [make("canvas"), make("i")]);
    map.setAttribute("role", "img");
    map.addEventListener("click", event => {
      const { top, height } = map.getBoundingClientRect();
      const row = Math.floor(((event.clientY - top) / height) * reader.cache.length);
      choose_token(reader.start + row);
    });
    element("heads").append(make("figure", {}, [
      make("figcaption", { textContent: `Head ${h + 1}` }), map,
      make("div", { className: "shaded" }),
    ]));
  }
  for (let i = 0; i < model.config.n_layers; i++) {
    const checked = i === tale.layer;
    const input = make("input", { type: "radio", name: "layer", checked });
    input.addEventListener("change", () => { tale.layer = i; show_attention(); });
    const number = make("span", { textContent: i + 1 });
    element("layers").append(make("label", {}, [input, number]));
  }
}

/** What the colors of the heat maps mean. */
function show_legend() {
  read_colors();
  const stops = [0, 0.02, 0.1, 0.3, 0.6, 1].map(
    weight => `rgb(${colors.heat.join(" ")} / ${shade(weight)}) ${100 * weight}%`,
  );
  document.querySelector(".scale").style.background =
    `linear-gradient(to right, ${stops.join(", ")})`;
}

function show_attention() {
  compute_attention();
  show_maps();
}

/** Show the attention of this token; of the last one if it is null. */
function choose_token(index) {
  tale.chosen = index;
  tale.pointed = null;
  show_choice();
  show_rows();
}

/** Show the attention of the token under the mouse, for as long as it is there. */
function point_at(index) {
  if (tale.running || index === tale.pointed) return;
  tale.pointed = index;
  show_choice();
  show_rows();
}

// ------------------------------------------------------------------------- going on

/** Draw the page. While the model runs, what takes long is drawn less often. */
const last_drawn = { text: 0, attention: 0 };
function show(everything = true) {
  const now = performance.now();
  if (everything || now - last_drawn.text > 100) {
    show_text();
    show_tokens();
    show_choice();
    show_next();
    last_drawn.text = performance.now();
  }
  if (everything || now - last_drawn.attention > 600) {
    show_attention();
    last_drawn.attention = performance.now();
  }
}

/** Read what is new in the text. False if the text was changed meanwhile. */
async function read() {
  tale.logits = null;
  const logits = await reader.read(tale.ids);
  if (logits === null) return false;
  tale.logits = logits;
  return true;
}

/** Begin again with the beginning and the seed as they stand. */
async function restart() {
  tale.running = 0;
  const start = END === undefined ? [] : [END]; // in training it stood before each tale
  const seed = Math.min(Math.max(element("seed").valueAsNumber || 0, 0), 2 ** 32 - 1);
  tale.ids = [...start, ...tokenizer.encode_ordinary(element("prompt").value)];
  tale.n_prompt = tale.ids.length;
  tale.drawn.clear();
  tale.generator = new Generator(seed);
  tale.point = tale.generator.uniform();
  tale.ended = false;
  tale.chosen = tale.pointed = null;
  tale.unsaid = "";
  tale.logits = null;
  const empty = tale.ids.length === 0;
  element("status").textContent = empty ? "Type a word to begin with." : "";
  document.querySelector(".steps").hidden = empty;
  show_text();
  show_tokens();
  if (!empty && await read()) show();
}

/** Draw one token and add it to the text. */
async function take() {
  if (tale.logits === null || tale.ended) return;
  const logits = tale.logits.subarray(0, tokenizer.n_vocab);
  const probs = next_token_distribution(logits, settings());
  const point = settings().temperature === 0 ? null : tale.point;
  const token = draw(probs, point ?? 0);
  if (token === END) {
    tale.ended = true;
    element("status").textContent =
      `The model drew ${quoted(END)}. The tale ends here.`;
    return;
  }
  tale.drawn.set(tale.ids.length, { p: probs[token], point });
  tale.ids.push(token);
  if (point !== null) tale.point = tale.generator.uniform();
  tale.unsaid += tokenizer.decode([token]);
  await read();
}

/** Give new text to screen readers. */
function say() {
  element("live").replaceChildren(make("span", { textContent: tale.unsaid }));
  tale.unsaid = "";
}

async function step() {
  if (tale.running) return stop();
  await take();
  show();
  say();
}

let n_runs = 0;

async function run() {
  if (tale.running) return stop();
  if (tale.ended || tale.ids.length === 0) return;
  const mine = tale.running = ++n_runs;
  tale.began = { at: performance.now(), length: tale.ids.length };
  element("status").textContent = "";
  while (tale.running === mine && !tale.ended) {
    const pace = Number(element("pace").value);
    await take();
    show(pace > 0);
    if (pace > 0 && /[.!?]\W*$/.test(tale.unsaid)) say();
    await (pace > 0 ? new Promise(done => setTimeout(done, 1000 / pace)) : pause());
  }
  if (tale.running === mine) stop(); // the tale has ended
  show();
}

function stop() {
  if (!tale.running) return;
  tale.running = 0;
  const n = tale.ids.length - tale.began.length;
  const seconds = (performance.now() - tale.began.at) / 1000;
  element("status").textContent += ` ${counted(n, "token")} in ` +
    `${seconds.toFixed(1)} s, ${(n / seconds).toFixed(0)} per second.`;
  say();
  show();
}

// ---------------------------------------------------------------- keys and pointers

function on_keys(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (event.shiftKey) run();
    else step();
  } else if (event.key === "Escape") {
    if (tale.running) stop();
    else choose_token(null);
  }
}

function on_token_keys(event) {
  const last = tale.ids.length - 1;
  const to = {
    ArrowLeft: chosen() - 1, ArrowUp: chosen() - 1, Home: reader.start,
    ArrowRight: chosen() + 1, ArrowDown: chosen() + 1, End: last,
  }[event.key];
  if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  choose_token(Math.min(Math.max(to, reader.start), last));
  element(`token-${chosen()}`).scrollIntoView({ block: "nearest" });
}

function start_page() {
  const { config, n_parameters } = model;
  const millions = n_parameters / 1e6;
  element("size").textContent = millions >= 0.1
    ? `${millions.toFixed(1)} million` : n_parameters.toLocaleString("en");
  element("width").textContent = config.d_model;
  element("position-note").textContent = {
    learned: "A second table adds a vector for the position.",
    sinusoidal: "Sines and cosines of the position are added to it.",
    rotary: "Its position is added later: attention turns queries and keys by it.",
    none: "Nothing says its position.",
  }[config.positions];
  const { n_layers, n_heads, vocab_size } = config;
  element("name").textContent = `${facts.name}, with ${counted(n_layers, "layer")}, ` +
    `${counted(n_heads, "head")} in each, and ${counted(vocab_size, "token")}`;
  make_sliders();
  make_heads();
  show_legend();
  element("prompt").addEventListener("input", restart);
  element("seed").addEventListener("input", restart);
  element("reset").addEventListener("click", restart);
  element("new-seed").addEventListener("click", () => {
    element("seed").value = Math.floor(Math.random() * 1e6);
    restart();
  });
  element("step").addEventListener("click", step);
  element("run").addEventListener("click", run);
  document.addEventListener("keydown", on_keys);
  const list = element("tokens");
  const index_of = event => [...list.children].indexOf(event.target.closest(".token"));
  list.addEventListener("keydown", on_token_keys);
  list.addEventListener("click", event => {
    if (index_of(event) >= reader.start) choose_token(index_of(event));
  });
  list.addEventListener("pointerover", event => {
    const index = index_of(event);
    if (event.pointerType === "mouse" && index >= reader.start) point_at(index);
  });
  list.addEventListener("pointerleave", () => point_at(null));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    show_legend();
    show();
  });
  return restart();
}

// What tests and the console use.
globalThis.course = { model, tokenizer, tale, ready: start_page(), stream, Generator,
  KVCache, Reader, next_token_distribution, draw, window_start };
