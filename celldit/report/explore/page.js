"use strict";
(() => {
  const data = JSON.parse(document.getElementById("content").textContent);
  const at = (id) => document.getElementById(id);
  const symbols = data.symbols || data.genes;  // genes by Ensembl ids are shown by their symbols
  const nGenes = data.genes.length, nContexts = data.contexts.length;
  const SURE = 0.05, ROWS = 200;

  // --- numbers ---------------------------------------------------------------------------------
  function unpack(part) {
    const text = atob(part.data), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    if (part.kind === "i2") {
      const view = new DataView(bytes.buffer), out = new Float32Array(bytes.length / 2);
      for (let i = 0; i < out.length; i++) {
        const value = view.getInt16(2 * i, true);
        out[i] = value === -32768 ? NaN : value * part.step;
      }
      return out;
    }
    const out = new Float32Array(bytes.length);
    for (let i = 0; i < out.length; i++) {
      out[i] = part.kind === "log" ? part.largest * Math.pow(10, -bytes[i] * part.step) : bytes[i] * part.step;
    }
    return out;
  }
  const effect = unpack(data.effect), sd = unpack(data.sd), lfsr = unpack(data.lfsr);
  const changed = unpack(data.p_changed), measured = unpack(data.measured);
  const background = unpack(data.plane.background), before = unpack(data.plane.before);
  const after = unpack(data.plane.after), nBefore = before.length / 2;
  const targets = data.targets.map((one) => ({...one, values: unpack(one.effect)}));

  const state = {perturbation: 0, context: 0, key: "lfsr", ascending: true, gene: null};
  const row = (p = state.perturbation, c = state.context) => p * nContexts + c;
  const slice = (array, r) => array.subarray(r * nGenes, (r + 1) * nGenes);
  const show = (x, digits = 2) => Number.isNaN(x) ? "–" : x.toFixed(digits).replace("-", "−");
  const rate = (x) => x < 1.05e-4 ? "≤ 0.0001" : x < 0.01 ? x.toExponential(0).replace("-", "−")
    : x.toFixed(2);

  // --- colours of the page -----------------------------------------------------------------------
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function layout(more) {
    const axis = {gridcolor: color("--line"), zerolinecolor: color("--line"),
      linecolor: color("--soft"), tickcolor: color("--soft"), automargin: true};
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: color("--ink"), size: 12, family: "system-ui, DejaVu Sans, sans-serif"},
      margin: {l: 56, r: 12, t: 30, b: 46}, showlegend: false, hovermode: "closest", autosize: true,
      modebar: {bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--ink")},
      ...more, xaxis: {...axis, ...(more.xaxis || {})}, yaxis: {...axis, ...(more.yaxis || {})},
    };
  }
  const CONFIG = {responsive: true, displaylogo: false,
    displayModeBar: matchMedia("(hover: none), (max-width: 820px)").matches ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: {format: "svg"}};

  // --- volcano -----------------------------------------------------------------------------------
  function volcano() {
    const r = row(), x = slice(effect, r), y = Array.from(slice(lfsr, r), (v) => -Math.log10(v));
    const s = slice(sd, r), p = slice(lfsr, r), strong = [];
    const colors = Array.from(p, (v, g) => v >= SURE ? color("--soft")
      : x[g] < 0 ? color("--measured") : color("--predicted"));
    for (let g = 0; g < nGenes; g++) if (p[g] < SURE) strong.push(g);
    strong.sort((a, b) => Math.abs(x[b]) * y[b] - Math.abs(x[a]) * y[a]);
    const hover = symbols.map((name, g) => `<b>${escape(name)}</b><br>log2 change ` +
      `${show(x[g])} ± ${show(s[g])}<br>local false sign rate ${rate(p[g])}`);
    const reach = 1.2 * Math.max(0.5, ...Array.from(x, Math.abs));
    const top = Math.max(1.6, 1.12 * Math.max(...y));
    const named = roomFor(state.gene === null ? strong : [state.gene, ...strong], x, y, reach, top);
    const text = symbols.map((name, g) => named.has(g) ? name : "");
    Plotly.react("volcano", [{
      type: "scatter", mode: "markers+text", x: Array.from(x), y, text, hovertext: hover,
      hoverinfo: "text", textposition: "top center", textfont: {size: 11, color: color("--ink")},
      marker: {color: colors, size: data.genes.map((_, g) => g === state.gene ? 12 : 6),
        opacity: 0.75, line: {width: data.genes.map((_, g) => g === state.gene ? 2 : 0),
          color: color("--ink")}},
    }], layout({
      xaxis: {title: {text: "log2 fold change"}, range: [-reach, reach]},
      yaxis: {title: {text: "−log10 local false sign rate"}, range: [0, top]},
      shapes: [{type: "line", xref: "paper", x0: 0, x1: 1, y0: -Math.log10(SURE),
        y1: -Math.log10(SURE), line: {color: color("--soft"), width: 1, dash: "dash"}}],
    }), CONFIG);
  }
  // The most important names that do not cover each other.
  function roomFor(order, x, y, reach, top) {
    const box = at("volcano"), width = box.clientWidth - 70, height = 350, taken = [];
    const kept = new Set();
    for (const g of order.slice(0, 40)) {
      const half = 3.6 * symbols[g].length + 3, px = (x[g] / reach + 1) / 2 * width;
      const py = (1 - y[g] / top) * height - 11;
      if (px < half || px > width - half) continue;
      const free = taken.every(([u, v, w]) => Math.abs(u - px) > w + half || Math.abs(v - py) > 13);
      if (free) { kept.add(g); taken.push([px, py, half]); }
      if (kept.size === 12) break;
    }
    return kept;
  }
  const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

  // --- table of genes ----------------------------------------------------------------------------
  const COLUMNS = [
    ["gene", "gene", (g) => symbols[g]],
    ["effect", "log2 change", (g, r) => effect[r * nGenes + g]],
    ["sd", "±", (g, r) => sd[r * nGenes + g]],
    ["lfsr", "false sign rate", (g, r) => lfsr[r * nGenes + g]],
    ["p_changed", "p changed", (g, r) => changed[r * nGenes + g]],
    ["measured", "measured", (g, r) => measured[r * nGenes + g]],
    ["base", "base rate", (g) => data.base[state.context][g]],
  ];
  const TITLES = {effect: "predicted log2 fold change", sd: "root mean square error to expect",
    lfsr: "local false sign rate", p_changed: "probability of a change that matters",
    measured: "measured log2 fold change in this context, where there are 20 cells",
    base: "counts per 10,000 in control cells"};
  function chosen() {
    const words = at("search").value.trim().toLowerCase().split(/[\s,;]+/).filter(Boolean);
    const r = row(), only = at("sure").checked;
    const rows = [];
    for (let g = 0; g < nGenes; g++) {
      if (only && lfsr[r * nGenes + g] >= SURE) continue;
      const name = `${data.genes[g]} ${symbols[g]}`.toLowerCase();
      if (words.length && !words.some((word) => name.includes(word))) continue;
      rows.push(g);
    }
    const of = COLUMNS.find(([key]) => key === state.key)[2], sign = state.ascending ? 1 : -1;
    const size = state.key === "effect" || state.key === "measured" ? Math.abs : (v) => v;
    const value = (g) => { const v = size(of(g, r)); return Number.isNaN(v) ? -sign * Infinity : v; };
    return rows.sort((a, b) => {
      const [u, v] = [value(a), value(b)];
      if (u !== v) return (u < v ? -1 : 1) * sign;
      return Math.abs(effect[r * nGenes + b]) - Math.abs(effect[r * nGenes + a]);
    });
  }
  function table() {
    const rows = chosen(), r = row(), body = document.createElement("tbody");
    for (const g of rows.slice(0, ROWS)) {
      const line = body.insertRow();
      if (lfsr[r * nGenes + g] < SURE) line.className = "sure";
      for (const [key, , of] of COLUMNS) {
        const value = of(g, r), cell = line.insertCell();
        cell.textContent = key === "gene" ? value : key === "lfsr" ? rate(value) : show(value);
      }
      line.addEventListener("click", () => { state.gene = g; volcano(); });
    }
    at("genes").tBodies[0].replaceWith(body);
    for (const head of at("genes").tHead.rows[0].cells) {
      const sorted = head.dataset.key === state.key;
      head.setAttribute("aria-sort", sorted ? state.ascending ? "ascending" : "descending" : "none");
    }
    at("count").textContent = rows.length > ROWS
      ? `The first ${ROWS} of ${rows.length} genes; the download has all of them.`
      : `${rows.length} ${rows.length === 1 ? "gene" : "genes"}.`;
  }
  function heads() {
    const line = at("genes").tHead.insertRow();
    for (const [key, name] of COLUMNS) {
      const head = document.createElement("th");
      Object.assign(head, {textContent: name, title: TITLES[key] || "", tabIndex: 0});
      head.scope = "col";
      head.dataset.key = key;
      const sort = () => {
        const rising = key === "gene" || key === "lfsr" || key === "sd";
        state.ascending = state.key === key ? !state.ascending : rising;
        state.key = key;
        table();
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
      line.append(head);
    }
  }
  function download() {
    const r = row(), quote = (v) => /[",\n]/.test(v) ? `"${v.replace(/"/g, '""')}"` : v;
    const name = data.perturbations[state.perturbation], where = data.contexts[state.context];
    const lines = ["perturbation,context,extrapolation,gene," + (data.symbols ? "symbol," : "") +
      "log2_fold_change,log2_sd,lfsr,p_changed,measured_log2_fold_change,base_mean"];
    for (const g of chosen()) {
      const i = r * nGenes + g;
      const gene = data.symbols ? [data.genes[g], symbols[g]] : [data.genes[g]];
      lines.push([name, where, data.kinds[r], ...gene].map(quote).concat([
        effect[i].toFixed(4), sd[i].toFixed(4), lfsr[i].toPrecision(3), changed[i].toFixed(3),
        Number.isNaN(measured[i]) ? "" : measured[i].toFixed(4), data.base[state.context][g],
      ]).join(","));
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
    link.download = `${name}${where ? "_" + where : ""}.csv`.replace(/[^\w.+-]+/g, "_");
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // --- cells before and after ----------------------------------------------------------------------
  function points(array, rows, offset = 0) {
    return {x: rows.map((i) => array[offset + 2 * i]), y: rows.map((i) => array[offset + 2 * i + 1])};
  }
  function plane() {
    const where = data.contexts[state.context], name = data.perturbations[state.perturbation];
    const all = [...data.plane.background_label.keys()];
    const same = all.filter((i) => data.plane.background_label[i] === name &&
      data.plane.background_context[i] === where);
    const cells = [...data.plane.context.keys()].filter((i) => data.plane.context[i] === where);
    const offset = state.perturbation * 2 * nBefore;
    const dots = (name, place, shade, size, opacity) => ({type: "scatter", mode: "markers", name,
      ...place, hoverinfo: "name", marker: {color: shade, size, opacity}});
    const shares = data.plane.explained.map((share) => `(${Math.round(100 * share)}% of variance)`);
    Plotly.react("plane", [
      dots("all measured cells", points(background, all), color("--line"), 4, 0.8),
      dots("control cells", points(before, cells), color("--soft"), 6, 0.7),
      dots("measured " + name, points(background, same), color("--measured"), 7, 0.8),
      dots("the control cells, predicted", points(after, cells, offset), color("--predicted"), 6, 0.7),
    ], layout({showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0},
      margin: {l: 46, r: 12, t: 64, b: 46},
      xaxis: {title: {text: "component 1 " + shares[0]}, zeroline: false},
      yaxis: {title: {text: "component 2 " + shares[1]}, zeroline: false}}), CONFIG);
  }

  // --- programmes ----------------------------------------------------------------------------------
  function programs() {
    if (!data.programs.length) { at("programs-section").hidden = true; return; }
    const name = data.perturbations[state.perturbation], where = data.contexts[state.context];
    const own = data.programs.find((one) => one.perturbation === name && one.context === where);
    if (!own) { Plotly.purge("programs"); return; }
    const bar = (label, values, shade) => ({type: "bar", orientation: "h", name: label,
      y: own.names.slice().reverse(), x: values.slice().reverse().map((v) => 100 * v),
      marker: {color: shade}, hovertemplate: "%{y}: %{x:.1f}%<extra>" + label + "</extra>"});
    Plotly.react("programs", [bar("effect model", own.effect_model, color("--measured")),
      bar("network", own.network, color("--predicted"))],
    layout({barmode: "relative", showlegend: own.network.some((v) => v !== 0),
      legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0},
      xaxis: {title: {text: "share of the shift (%)"}},
      yaxis: {tickfont: {size: 10}}}), CONFIG);
  }

  // --- ranking -------------------------------------------------------------------------------------
  function goal() {
    const [kind, index] = at("target").value.split(":"), where = data.contexts[state.context];
    if (kind === "target") {
      const one = targets[index], place = one.contexts.indexOf(where);
      return place < 0 ? null : one.values.subarray(place * nGenes, (place + 1) * nGenes);
    }
    const found = slice(measured, row(Number(index)));
    return Number.isNaN(found[0]) ? null : found;
  }
  function ranking() {
    const aim = goal(), weight = data.base[state.context].map((rate) => rate / (rate + 0.5));
    if (aim === null) {
      Plotly.react("ranking", [], layout({xaxis: {visible: false}, yaxis: {visible: false},
        annotations: [{text: "The target has fewer than 20 cells in this context.", showarrow: false,
          xref: "paper", yref: "paper", x: 0.5, y: 0.5}]}), CONFIG);
      return;
    }
    let whole = 0;
    for (let g = 0; g < nGenes; g++) whole += weight[g] * aim[g] * aim[g];
    const scores = data.perturbations.map((name, p) => {
      const own = slice(effect, row(p));
      let left = 0;
      for (let g = 0; g < nGenes; g++) left += weight[g] * (aim[g] - own[g]) ** 2;
      return {name, p, score: whole > 0 ? 1 - left / whole : 0};
    }).sort((a, b) => b.score - a.score).slice(0, 30).reverse();
    const names = scores.map((one) => one.name);
    at("ranking").style.height = `${Math.max(260, 90 + 19 * names.length)}px`;
    Plotly.react("ranking", [{type: "bar", orientation: "h", y: names,
      x: scores.map((one) => one.score), hovertemplate: "%{y}: %{x:.2f}<extra></extra>",
      marker: {color: scores.map((one) => one.p === state.perturbation ? color("--predicted")
        : color("--measured"))}}],
    layout({height: Math.max(260, 90 + 19 * names.length), yaxis: {type: "category"},
      xaxis: {title: {text: "share of the squared distance removed"}}}), CONFIG);
    const plot = at("ranking");
    plot.removeAllListeners("plotly_click");
    plot.on("plotly_click", (event) => choose(data.perturbations.indexOf(event.points[0].y)));
  }

  // --- the whole -----------------------------------------------------------------------------------
  function headline() {
    const r = row(), name = data.perturbations[state.perturbation];
    const where = data.contexts[state.context], kind = data.kinds[r], cells = data.cells[r];
    const own = slice(lfsr, r), x = slice(effect, r);
    let up = 0, down = 0;
    for (let g = 0; g < nGenes; g++) if (own[g] < SURE) x[g] > 0 ? up++ : down++;
    at("headline").textContent = `${name}${where ? " in " + where : ""}: ${up + down} of ` +
      `${nGenes} genes change (${up} up, ${down} down).`;
    at("kind").textContent = kind === "seen" ? `measured (${cells} cells here)` : `predicted: ${kind}`;
    at("kind").className = kind === "seen" ? "kind" : "kind far";
  }
  function draw() {
    headline(); volcano(); table(); plane(); programs(); ranking();
    history.replaceState(null, "", "#" + encodeURIComponent(data.perturbations[state.perturbation]) +
      "|" + encodeURIComponent(data.contexts[state.context]));
  }
  function choose(p) {
    if (p < 0) return;
    state.perturbation = p;
    state.gene = null;
    at("perturbation").value = data.perturbations[p];
    draw();
  }
  function option(parent, value, text) {
    const one = document.createElement("option");
    one.value = value;
    one.textContent = text;
    parent.append(one);
  }
  data.perturbations.forEach((name) => option(at("perturbations"), name, name));
  data.contexts.forEach((name, c) => option(at("context"), c, name || "all cells"));
  at("context").parentElement.hidden = nContexts === 1 && !data.contexts[0];
  targets.forEach((one, i) => option(at("target"), `target:${i}`, one.name));
  data.perturbations.forEach((name, p) => {
    if (data.contexts.some((_, c) => !Number.isNaN(measured[row(p, c) * nGenes]))) {
      option(at("target"), `measured:${p}`, `like ${name}, as measured`);
    }
  });
  if (!at("target").options.length) document.querySelector(".wide").hidden = true;
  data.summary.forEach((sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    at("summary").append(item);
  });
  at("changed").textContent = data.changed;
  heads();
  at("perturbation").addEventListener("change", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    let found = data.perturbations.findIndex((name) => name.toLowerCase() === wanted);
    if (found < 0 && wanted) {
      found = data.perturbations.findIndex((name) => name.toLowerCase().includes(wanted));
    }
    if (found < 0) event.target.value = data.perturbations[state.perturbation];
    else choose(found);
  });
  at("perturbation").addEventListener("focus", (event) => event.target.select());
  at("context").addEventListener("change", (event) => {
    state.context = Number(event.target.value);
    draw();
  });
  at("target").addEventListener("change", ranking);
  at("search").addEventListener("input", table);
  at("sure").addEventListener("change", table);
  at("download").addEventListener("click", download);
  at("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = color("--paper") === "#14171b";
    root.dataset.theme = dark ? "light" : "dark";
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const [name, where] = location.hash.slice(1).split("|").map(decodeURIComponent);
  const first = data.perturbations.indexOf(name), place = data.contexts.indexOf(where);
  if (place >= 0) { state.context = place; at("context").value = place; }
  let strongest = 0;
  if (first < 0) {
    const counts = data.perturbations.map((_, p) => slice(lfsr, row(p)).filter((v) => v < SURE).length);
    strongest = counts.indexOf(Math.max(...counts));
  }
  choose(first >= 0 ? first : strongest);
  document.body.dataset.ready = "yes";
})();
