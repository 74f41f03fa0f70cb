(() => {
  "use strict";
  const root = document.currentScript.closest(".landscape");
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
  const select = root.querySelector("select"), readout = root.querySelector(".landscape-readout");
  const key = root.querySelector(".landscape-key");
  const { x, y, tasks, marks, colours } = data;
  const margin = { left: 62, right: 14, top: 14, bottom: 52 };
  const step = [(x[x.length - 1] - x[0]) / (x.length - 1), (y[y.length - 1] - y[0]) / (y.length - 1)];
  const low = [x[0] - step[0] / 2, y[0] - step[1] / 2];
  const span = [step[0] * x.length, step[1] * y.length];
  let width = 0, side = 0, cursor = null;

  const rgb = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16) / 255);
  const mix = (base, ink, share) => base.map((c, i) => c * (1 - share * (1 - ink[i])));
  const css = (colour) => `rgb(${colour.map((c) => Math.round(255 * c)).join(",")})`;

  function colourOf(gains) {
    if (gains.some((gain) => gain === null)) return css(rgb(colours.failed));
    if (select.value !== "all") {
      const share = Math.max(-1, Math.min(1, gains[0] / tasks[Number(select.value)].limit));
      return css(mix([1, 1, 1], rgb(share < 0 ? colours.below : colours.above), Math.abs(share)));
    }
    let colour = [1, 1, 1];
    gains.forEach((gain, n) => {
      colour = mix(colour, rgb(colours.inks[n]), Math.max(0, Math.min(1, gain / tasks[n].limit)));
    });
    return css(colour);
  }

  const shown = () => (select.value === "all" ? tasks : [tasks[Number(select.value)]]);
  const across = (value) => margin.left + ((value - low[0]) / span[0]) * side;
  const down = (value) => margin.top + side - ((value - low[1]) / span[1]) * side;
  const number = (value) => (value === null ? "failed" : Number(value.toPrecision(4)).toString());
  const signed = (value) => (value === null ? "failed" : (value < 0 ? "−" : "+") +
    Number(Math.abs(value).toPrecision(3)).toString());

  function draw() {
    width = Math.min(root.clientWidth, 620);
    side = width - margin.left - margin.right;
    const height = side + margin.top + margin.bottom, ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const ink = getComputedStyle(root).color;
    const cell = [side / x.length, side / y.length];
    for (let row = 0; row < y.length; row++) {
      for (let column = 0; column < x.length; column++) {
        context.fillStyle = colourOf(shown().map((task) => task.gains[row][column]));
        context.fillRect(margin.left + column * cell[0], margin.top + side - (row + 1) * cell[1],
          cell[0] + 0.5, cell[1] + 0.5);
      }
    }
    context.strokeStyle = context.fillStyle = ink;
    context.lineWidth = 1;
    context.strokeRect(margin.left, margin.top, side, side);
    context.font = "12px system-ui, sans-serif";
    for (const at of ticks(low[0], span[0])) {
      context.textAlign = "center";
      context.fillText(at.toString().replace("-", "−"), across(at), margin.top + side + 16);
    }
    for (const at of ticks(low[1], span[1])) {
      context.textAlign = "right";
      context.fillText(at.toString().replace("-", "−"), margin.left - 6, down(at) + 4);
    }
    context.textAlign = "center";
    context.fillText(data.labels[0], margin.left + side / 2, margin.top + side + 38);
    context.save();
    context.translate(14, margin.top + side / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(data.labels[1], 0, 0);
    context.restore();
    drawMarks();
    if (cursor !== null) {
      context.strokeStyle = "#000000";
      context.lineWidth = 3;
      const box = [margin.left + cursor[0] * cell[0], margin.top + side - (cursor[1] + 1) * cell[1]];
      context.strokeRect(box[0], box[1], cell[0], cell[1]);
      context.strokeStyle = "#ffffff";
      context.lineWidth = 1;
      context.strokeRect(box[0], box[1], cell[0], cell[1]);
    }
    const swatch = (colour, text) => `<span class="landscape-swatch" style="background:${colour}"></span>` +
      text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
    const names = shown().map((task) => task.name);
    key.innerHTML = select.value === "all"
      ? [...names.map((name, n) => swatch(colours.inks[n], `${name} better than θ`)),
         swatch("#ffffff", "none better"), swatch(colours.failed, "failed")].join("")
      : [swatch(colours.above, `${names[0]} better than θ (by ${number(shown()[0].limit)} or more)`),
         swatch("#ffffff", "as good"), swatch(colours.below, "as much worse, or more"),
         swatch(colours.failed, "failed")].join("");
  }

  function drawMarks() {
    context.font = "bold 12px system-ui, sans-serif";
    context.textAlign = "left";
    for (const [name, [a, b]] of Object.entries(marks)) {
      const minor = name.endsWith("(projected)");
      context.beginPath();
      context.arc(across(a), down(b), minor ? 3 : 5, 0, 2 * Math.PI);
      context.fillStyle = "#ffffff";
      context.fill();
      context.strokeStyle = "#000000";
      context.lineWidth = 1.3;
      context.stroke();
      if (minor) continue;
      context.lineWidth = 3;
      context.strokeStyle = "#ffffff";
      context.strokeText(name, across(a) + 8, down(b) - 6);
      context.fillStyle = "#000000";
      context.fillText(name, across(a) + 8, down(b) - 6);
    }
  }

  function ticks(from, length) {
    const rough = length / 6, power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const found = [];
    for (let n = Math.ceil(from / size); n * size <= from + length; n++) {
      found.push(Number((n * size).toPrecision(6)));
    }
    return found;
  }

  function tell(near) {
    if (near !== undefined) {
      const [a, b] = marks[near];
      const scores = tasks.map((task) => said(task, task.marks[near].value, task.marks[near].gain));
      readout.textContent = `${near}: x ${number(a)}, y ${number(b)}; ${scores.join("; ")}`;
      return;
    }
    const [column, row] = cursor;
    const scores = tasks.map((task) => said(task, task.values[row][column], task.gains[row][column]));
    readout.textContent = `x ${number(x[column])}, y ${number(y[row])}, ` +
      `distance ${number(data.distance[row][column])}; ${scores.join("; ")}`;
  }

  const said = (task, value, gain) => value === null ? `${task.name}: failed`
    : `${task.name}: ${task.metric} ${number(value)} (gain ${signed(gain)})`;

  function move(event) {
    const box = canvas.getBoundingClientRect();
    const at = [event.clientX - box.left, event.clientY - box.top];
    const near = Object.keys(marks).find((name) => {
      const [a, b] = marks[name];
      return Math.hypot(across(a) - at[0], down(b) - at[1]) < 6;
    });
    const column = Math.floor(((at[0] - margin.left) / side) * x.length);
    const row = Math.floor(((margin.top + side - at[1]) / side) * y.length);
    if (column < 0 || row < 0 || column >= x.length || row >= y.length) return;
    cursor = [column, row];
    draw();
    tell(near);
  }

  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", move);
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const from = cursor ?? [Math.floor(x.length / 2) - by[0], Math.floor(y.length / 2) - by[1]];
    cursor = [Math.max(0, Math.min(x.length - 1, from[0] + by[0])),
              Math.max(0, Math.min(y.length - 1, from[1] + by[1]))];
    draw();
    tell();
  });
  select.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
