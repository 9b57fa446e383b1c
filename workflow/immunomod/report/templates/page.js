"use strict";
document.querySelectorAll("input.filter").forEach(function (box) {
  var rows = document.getElementById(box.dataset.table).tBodies[0].rows;
  box.hidden = false;
  box.addEventListener("input", function () {
    var wanted = box.value.toLowerCase();
    for (var i = 0; i < rows.length; i++) {
      rows[i].hidden = rows[i].textContent.toLowerCase().indexOf(wanted) < 0;
    }
  });
});
var opened = [];
addEventListener("beforeprint", function () {
  opened = Array.prototype.filter.call(document.querySelectorAll("details.print"), function (d) { return !d.open; });
  opened.forEach(function (d) { d.open = true; });
});
addEventListener("afterprint", function () { opened.forEach(function (d) { d.open = false; }); });
