"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  const toggle = document.getElementById("theme");
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const nameOther = () => {
    toggle.textContent = isDark() ? "Light" : "Dark";
  };
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameOther();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameOther);
  nameOther();

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v === undefined) return cell.textContent;
    return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);

  for (const table of document.querySelectorAll("table.sorts")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.firstElementChild.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const numbers = head.classList.contains("number") && column > 0;
        const up = now ? now === "descending" : !numbers; // the largest number first, the first name first
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        for (const body of table.tBodies) {
          const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
          rows.sort(([a], [b]) => {
            if (a === null || b === null) return (a === null) - (b === null); // what has no number comes last
            return up ? compare(a, b) : compare(b, a);
          });
          body.append(...rows.map(([, row]) => row));
        }
      });
    });
    heads[0].setAttribute("aria-sort", "ascending");
  }

  const bodies = [...document.querySelectorAll("tbody[data-depth]")];
  const depth = document.getElementById("depth");
  depth.addEventListener("change", () => {
    for (const body of bodies) body.hidden = body.dataset.depth !== depth.value;
  });
  const find = document.getElementById("find");
  find.addEventListener("input", () => {
    const part = find.value.trim().toLowerCase();
    for (const body of bodies)
      for (const row of body.rows)
        row.hidden = !(row.cells[1].textContent + " " + row.cells[2].textContent).toLowerCase().includes(part);
  });
})();
