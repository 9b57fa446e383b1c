"use strict";

// Tables: a box that filters rows, and headings that sort them.
function all(selector, root) {
  return Array.prototype.slice.call((root || document).querySelectorAll(selector));
}
function make(name, css, text) {
  var element = document.createElement(name);
  if (css) { element.className = css; }
  if (text !== undefined) { element.textContent = text; }
  return element;
}
all("input.filter").forEach(function (box) {
  var rows = document.getElementById(box.dataset.table).tBodies[0].rows;
  box.hidden = false;
  box.addEventListener("input", function () {
    var wanted = box.value.toLowerCase();
    for (var i = 0; i < rows.length; i++) {
      rows[i].hidden = rows[i].textContent.toLowerCase().indexOf(wanted) < 0;
    }
  });
});
function sortValue(cell, numeric) {
  var text = cell.textContent.trim();
  if (!numeric) { return text.toLowerCase(); }
  var number = parseFloat(text.replace(/\u2212/g, "-").replace(/[<,\s]/g, ""));
  return isNaN(number) ? Infinity : text[0] === "<" ? number / 2 : number;
}
all("table.sortable").forEach(function (table) {
  all("thead th", table).forEach(function (heading, column) {
    var button = make("button", "sort", heading.textContent);
    button.type = "button";
    button.title = "Sort by this column";
    heading.textContent = "";
    heading.appendChild(button);
    button.addEventListener("click", function () {
      var down = heading.getAttribute("aria-sort") === "ascending";
      var numeric = heading.classList.contains("num"), body = table.tBodies[0];
      all("thead th", table).forEach(function (other) { other.removeAttribute("aria-sort"); });
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      var keyed = all("tr", body).map(function (row, place) {
        return { row: row, place: place, key: sortValue(row.cells[column], numeric) };
      });
      keyed.sort(function (a, b) {
        if (a.key === b.key) { return a.place - b.place; }
        // What is not a number stands last either way.
        if (a.key === Infinity || b.key === Infinity) { return a.key === Infinity ? 1 : -1; }
        var order = numeric ? a.key - b.key : String(a.key).localeCompare(String(b.key), "en", { numeric: true });
        return down ? -order : order;
      });
      keyed.forEach(function (item) { body.appendChild(item.row); });
    });
  });
});

// Every table lies once in the page, in the list at its end; a link elsewhere fetches it from there.
all("a.get").forEach(function (link) {
  link.addEventListener("click", function (event) {
    var holder = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (holder) { event.preventDefault(); holder.click(); }
  });
});

// Paper shows what the screen folds away.
var opened = [];
addEventListener("beforeprint", function () {
  opened = all("details.print").filter(function (d) { return !d.open; });
  opened.forEach(function (d) { d.open = true; });
});
addEventListener("afterprint", function () { opened.forEach(function (d) { d.open = false; }); });

// The map of the cells.
function unpack(element) {
  var binary = atob(element.textContent), bytes = new Uint8Array(binary.length);
  for (var i = 0; i < bytes.length; i++) { bytes[i] = binary.charCodeAt(i); }
  var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
function packed(colour) {
  var n = parseInt(colour.slice(1), 16);
  return ((255 << 24) | ((n & 255) << 16) | (n & 0xff00) | (n >> 16)) >>> 0;
}
function CellMap(figure) {
  this.figure = figure;
  this.spec = JSON.parse(figure.dataset.map);
  this.elements = all("data", figure);
  this.canvas = figure.querySelector("canvas");
  this.select = figure.querySelector("select");
  this.legend = figure.querySelector(".legend");
  this.tip = figure.querySelector(".tip");
  this.arrays = {};
  this.zoom = 1; this.left = 0; this.top = 0; this.only = -1;
  this.by = this.spec.groups[0] || this.spec.scores[0];
}
CellMap.prototype.array = function (number) {
  var self = this;
  if (!this.arrays[number]) {
    var isScore = this.spec.scores.some(function (score) { return score.array === number; });
    this.arrays[number] = unpack(this.elements[number]).then(function (buffer) {
      var values = isScore ? new Uint8Array(buffer) : new Uint16Array(buffer);
      self.arrays[number].values = values;
      return values;
    });
  }
  return this.arrays[number];
};
CellMap.prototype.start = function () {
  var self = this;
  if (!this.by) { return; }
  Promise.all([this.array(0), this.array(1), this.array(this.by.array)]).then(function (found) {
    self.x = found[0]; self.y = found[1];
    self.order = self.mixed();
    self.figure.classList.add("live");
    self.offer();
    self.listen();
    self.colourBy(self.by);
    self.spec.groups.forEach(function (group) { self.array(group.array); });
  }).catch(function () { self.figure.classList.remove("live"); });
};
// A fixed mixed order, so that no group lies on top of another.
CellMap.prototype.mixed = function () {
  var n = this.spec.n, step = Math.max(1, Math.floor(n * 0.618)), order = new Uint32Array(n);
  function common(a, b) { return b ? common(b, a % b) : a; }
  while (common(step, n) !== 1) { step++; }
  for (var i = 0, at = 0; i < n; i++) { order[i] = at; at = (at + step) % n; }
  return order;
};
CellMap.prototype.offer = function () {
  var self = this, sides = {};
  this.choices = this.spec.groups.concat(this.spec.scores);
  this.choices.forEach(function (choice, number) {
    var name = choice.levels ? "Groups" : "Programmes of " + choice.side;
    if (!sides[name]) {
      sides[name] = make("optgroup");
      sides[name].label = name;
      self.select.appendChild(sides[name]);
    }
    var option = make("option", "", choice.title);
    option.value = number;
    sides[name].appendChild(option);
  });
  this.select.addEventListener("change", function () { self.colourBy(self.choices[self.select.value]); });
};
CellMap.prototype.colourBy = function (choice) {
  var self = this;
  this.only = -1;
  this.array(choice.array).then(function (values) {
    self.by = choice; self.values = values;
    self.describe();
    self.draw();
  });
};
CellMap.prototype.describe = function () {
  var self = this, legend = this.legend;
  legend.textContent = "";
  if (!this.by.levels) {
    var item = make("li", "ramp");
    item.appendChild(make("span", "", this.by.low.toFixed(1).replace("-", "\u2212")));
    var bar = make("i");
    bar.style.background = "linear-gradient(to right," + this.spec.ramp.join(",") + ")";
    item.appendChild(bar);
    item.appendChild(make("span", "", this.by.high.toFixed(1).replace("-", "\u2212") + " score (t-value); the outer 1% share the end colours"));
    legend.appendChild(item);
    return;
  }
  this.by.levels.forEach(function (level, code) {
    var item = make("li"), button = make("button", "level"), dot = make("span", "dot");
    button.type = "button";
    dot.style.background = level.colour;
    button.appendChild(dot);
    button.appendChild(make("span", "", level.label));
    button.appendChild(make("span", "n", level.n.toLocaleString("en")));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", function () {
      self.only = self.only === code ? -1 : code;
      all("button.level", legend).forEach(function (other, place) {
        other.setAttribute("aria-pressed", String(place === self.only));
      });
      self.draw();
    });
    item.appendChild(button);
    legend.appendChild(item);
  });
};
CellMap.prototype.size = function () {
  var ratio = Math.min(window.devicePixelRatio || 1, 2), width = this.canvas.clientWidth;
  var height = Math.round(Math.min(width / this.spec.aspect, width, 720));
  this.canvas.style.height = height + "px";
  this.ratio = ratio;
  this.canvas.width = Math.round(width * ratio);
  this.canvas.height = Math.round(height * ratio);
  var pad = 12 * ratio, w = this.canvas.width - 2 * pad, h = this.canvas.height - 2 * pad;
  var scale = Math.min(w / this.spec.aspect, h);
  this.scaleX = scale * this.spec.aspect / 65535; this.scaleY = scale / 65535;
  this.padX = pad + (w - scale * this.spec.aspect) / 2; this.padY = pad + (h - scale) / 2;
};
CellMap.prototype.place = function (i) { return this.seen(this.x[i], this.y[i]); };
CellMap.prototype.seen = function (x, y) {
  return [
    (this.padX + x * this.scaleX - this.left) * this.zoom,
    (this.padY + (65535 - y) * this.scaleY - this.top) * this.zoom
  ];
};
CellMap.prototype.draw = function () {
  // Paper takes the picture, which is finer, while the map shows the same.
  this.figure.classList.toggle("changed", this.by.column !== "cell_class" || this.only >= 0 || this.zoom > 1);
  this.size();
  var canvas = this.canvas, width = canvas.width, height = canvas.height;
  if (!width || !height) { return; }
  var context = canvas.getContext("2d"), image = context.createImageData(width, height);
  var pixels = new Uint32Array(image.data.buffer).fill(0xffffffff), values = this.values, only = this.only;
  var colours = (this.by.levels || this.spec.ramp).map(function (c) { return packed(c.colour || c); });
  var grey = packed("#dfe3e6"), missing = packed("#dfe3e6"), n = this.spec.n;
  var radius = Math.sqrt(width * height / n) * 0.16 * Math.sqrt(this.zoom);
  radius = Math.max(0.5 * this.ratio, Math.min(radius, 3 * this.ratio));
  var reach = Math.ceil(radius), disc = [];
  for (var dy = -reach; dy <= reach; dy++) {
    for (var dx = -reach; dx <= reach; dx++) {
      if (dx * dx + dy * dy <= radius * radius) { disc.push([dx, dy]); }
    }
  }
  for (var pass = only < 0 ? 1 : 0; pass < 2; pass++) {
    for (var k = 0; k < n; k++) {
      var i = this.order[k], value = values[i];
      if (only >= 0 && (value === only) !== (pass === 1)) { continue; }
      var at = this.place(i), x = Math.round(at[0]), y = Math.round(at[1]);
      var colour = pass === 0 ? grey : value < colours.length ? colours[value] : missing;
      for (var d = 0; d < disc.length; d++) {
        var px = x + disc[d][0], py = y + disc[d][1];
        if (px >= 0 && py >= 0 && px < width && py < height) { pixels[py * width + px] = colour; }
      }
    }
  }
  context.putImageData(image, 0, 0);
  if (this.by.names) { this.name(context); }
  canvas.dataset.by = this.by.title;
  canvas.dataset.view = [this.zoom.toFixed(2), Math.round(this.left), Math.round(this.top)].join(" ");
  canvas.setAttribute("aria-label", "Map of " + n.toLocaleString("en") + " cells, coloured by " + this.by.title);
};
CellMap.prototype.name = function (context) {
  var self = this;
  context.font = "600 " + 12 * this.ratio + "px system-ui, sans-serif";
  context.textAlign = "center"; context.textBaseline = "middle";
  context.lineWidth = 3.5 * this.ratio; context.strokeStyle = "#fff"; context.lineJoin = "round";
  var taken = [], line = 14 * this.ratio;
  function clash(x, y, half) {
    return taken.some(function (t) { return Math.abs(t[1] - y) < line && Math.abs(t[0] - x) < t[2] + half; });
  }
  this.by.names.forEach(function (named) {
    var code = named[0], at = self.seen(named[1], named[2]);
    var outside = at[0] < 0 || at[1] < 0 || at[0] > self.canvas.width || at[1] > self.canvas.height;
    if (outside || (self.only >= 0 && self.only !== code)) { return; }
    var text = self.by.levels[code].label.split(",")[0], half = context.measureText(text).width / 2 + 4;
    var x = Math.max(half, Math.min(at[0], self.canvas.width - half)), y = at[1];
    for (var tries = 0; tries < 8 && clash(x, y, half); tries++) { y += line; }
    taken.push([x, y, half]);
    context.strokeText(text, x, y);
    context.fillStyle = "#17212b";
    context.fillText(text, x, y);
  });
};
CellMap.prototype.nearest = function (x, y) {
  var best = -1, least = 100 * this.ratio * this.ratio;
  for (var i = 0; i < this.spec.n; i++) {
    var at = this.place(i), far = (at[0] - x) * (at[0] - x) + (at[1] - y) * (at[1] - y);
    if (far < least) { least = far; best = i; }
  }
  return best;
};
CellMap.prototype.tell = function (x, y) {
  var i = this.nearest(x, y), self = this;
  if (i < 0) { this.tip.textContent = this.hint; return; }
  this.tip.textContent = this.spec.groups.map(function (group) {
    var values = self.arrays[group.array] && self.arrays[group.array].values;
    return values ? group.title + ": " + group.levels[values[i]].label : "";
  }).filter(Boolean).join(" · ");
};
CellMap.prototype.magnify = function (factor, x, y) {
  var before = this.zoom;
  this.zoom = Math.max(1, Math.min(before * factor, 24));
  this.left += x / before - x / this.zoom; this.top += y / before - y / this.zoom;
  this.hold();
};
CellMap.prototype.hold = function () {
  var room = 1 - 1 / this.zoom;
  this.left = Math.max(0, Math.min(this.left, this.canvas.width * room));
  this.top = Math.max(0, Math.min(this.top, this.canvas.height * room));
  this.canvas.classList.toggle("near", this.zoom > 1);
  this.soon();
};
CellMap.prototype.soon = function () {
  var self = this;
  if (this.waiting) { return; }
  this.waiting = requestAnimationFrame(function () { self.waiting = 0; self.draw(); });
};
CellMap.prototype.listen = function () {
  var self = this, canvas = this.canvas, held = null;
  this.hint = this.tip.textContent;
  function at(event) {
    var box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * self.ratio, (event.clientY - box.top) * self.ratio];
  }
  all("button[data-zoom]", this.figure).forEach(function (button) {
    button.addEventListener("click", function () {
      var factor = parseFloat(button.dataset.zoom) || 1 / self.zoom;
      self.magnify(factor, canvas.width / 2, canvas.height / 2);
    });
  });
  canvas.addEventListener("dblclick", function (event) { var p = at(event); self.magnify(2, p[0], p[1]); });
  canvas.addEventListener("wheel", function (event) {
    if (!event.ctrlKey && !event.metaKey) { return; }
    event.preventDefault();
    var p = at(event);
    self.magnify(Math.exp(-event.deltaY / 200), p[0], p[1]);
  }, { passive: false });
  canvas.addEventListener("pointerdown", function (event) {
    if (self.zoom > 1) { held = at(event); canvas.setPointerCapture(event.pointerId); }
  });
  canvas.addEventListener("pointermove", function (event) {
    var p = at(event);
    if (!held) { self.tell(p[0], p[1]); return; }
    self.left -= (p[0] - held[0]) / self.zoom; self.top -= (p[1] - held[1]) / self.zoom;
    held = p;
    self.hold();
  });
  canvas.addEventListener("click", function (event) { var p = at(event); self.tell(p[0], p[1]); });
  // The same without a mouse.
  canvas.addEventListener("keydown", function (event) {
    var key = event.key, pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (pan && self.zoom > 1) {
      self.left += pan[0] * canvas.width / self.zoom / 8; self.top += pan[1] * canvas.height / self.zoom / 8;
      self.hold();
    } else if (key === "+" || key === "=" || key === "-" || key === "0") {
      self.magnify(key === "0" ? 1 / self.zoom : key === "-" ? 0.625 : 1.6, canvas.width / 2, canvas.height / 2);
    } else { return; }
    event.preventDefault();
  });
  ["pointerup", "pointercancel"].forEach(function (name) {
    canvas.addEventListener(name, function () { held = null; });
  });
  addEventListener("resize", function () { self.soon(); });
};
if (window.DecompressionStream) {
  all("figure[data-map]").forEach(function (figure) { new CellMap(figure).start(); });
}
