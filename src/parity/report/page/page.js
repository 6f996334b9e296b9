
"use strict";
(function () {
  var form = document.getElementById("form");
  if (!form) { return; }
  var box = document.getElementById("filter");
  var status = document.getElementById("status");
  var open = document.getElementById("open");
  var groups = Array.from(document.querySelectorAll("details.group")).map(function (element) {
    var rows = Array.from(element.querySelectorAll(".row")).map(function (row) {
      return { element: row, text: row.textContent.toLowerCase() };
    });
    var head = element.querySelector("summary").textContent.toLowerCase();
    return { element: element, head: head, rows: rows };
  });

  function apply() {
    var words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    var groupsLeft = 0, rowsLeft = 0;
    groups.forEach(function (group) {
      var left = 0;
      var whole = words.every(function (word) { return group.head.includes(word); });
      group.rows.forEach(function (row) {
        var fits = whole || words.every(function (word) {
          return group.head.includes(word) || row.text.includes(word);
        });
        row.element.hidden = !fits;
        left += fits ? 1 : 0;
      });
      var stays = whole || left !== 0;
      group.element.hidden = !stays;
      if (words.length) { group.element.open = stays; }
      groupsLeft += stays ? 1 : 0;
      rowsLeft += left;
    });
    status.textContent = words.length ? groupsLeft + " of " + groups.length + " groups, " + rowsLeft + " entries" : "";
    document.body.dataset.filter = words.join(" ");
  }

  function follow() {
    var hash = location.hash.slice(1);
    try { hash = decodeURIComponent(hash); } catch (e) { hash = ""; }
    if (hash.startsWith("filter=")) {
      box.value = hash.slice(7);
      apply();
      return;
    }
    var target = hash ? document.getElementById(hash) : null;
    if (target ? target.matches("details.group") : false) { target.open = true; }
  }

  box.addEventListener("input", function () {
    apply();
    history.replaceState(null, "", box.value ? "#filter=" + encodeURIComponent(box.value) : "#");
  });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  open.addEventListener("click", function () {
    var all = open.textContent === "Open all";
    groups.forEach(function (group) { group.element.open = all; });
    open.textContent = all ? "Close all" : "Open all";
  });
  window.addEventListener("hashchange", follow);
  form.hidden = false;
  follow();
})();
