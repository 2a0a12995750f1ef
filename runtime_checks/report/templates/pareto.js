"use strict";
(() => {
  const figure = document.querySelector(".trade-off");
  const readout = figure.querySelector(".readout");
  const marks = [...figure.querySelectorAll(".mark")];
  const table = document.querySelector(".points");
  const rows = [...table.tBodies[0].rows];
  const rowOf = new Map(rows.map((row) => [row.dataset.index, row]));
  const markOf = new Map(marks.map((mark) => [mark.dataset.index, mark]));
  let held = null;

  const describe = (index) => {
    if (index === null) return "\u00a0";
    const cells = [...rowOf.get(index).cells].slice(1).map((cell) => cell.textContent.trim());
    const [model, backend, recipe, parity, der, size, time, ms] = cells;
    return `${model}, ${backend}/${recipe}: DER ${der}, ${size}, time ${time}${ms ? `, ${ms} ms` : ""}, ${parity}`;
  };
  const show = (index) => { readout.textContent = describe(index); };
  const hold = (index) => {
    held = held === index ? null : index;
    for (const each of [...marks, ...rows]) each.classList.toggle("held", each.dataset.index === held);
    show(held);
  };
  for (const each of [...marks, ...rows]) {
    const index = each.dataset.index;
    each.addEventListener("pointerenter", () => show(index));
    each.addEventListener("pointerleave", () => show(held));
    each.addEventListener("focus", () => show(index));
    each.addEventListener("click", () => hold(index));
    each.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      hold(index);
    });
  }

  const axisButtons = [...figure.querySelectorAll("button[data-axis]")];
  for (const button of axisButtons)
    button.addEventListener("click", () => {
      figure.dataset.axis = button.dataset.axis;
      for (const other of axisButtons) other.setAttribute("aria-pressed", String(other === button));
      for (const mark of marks)
        mark.setAttribute("transform", `translate(${mark.dataset[button.dataset.axis]} ${mark.dataset.y})`);
    });

  const filters = [...figure.querySelectorAll("fieldset[data-filter]")];
  const filter = () => {
    const wanted = filters.map((set) => [
      set.dataset.filter,
      new Set([...set.querySelectorAll("input:checked")].map((box) => box.value)),
    ]);
    for (const row of rows) {
      row.hidden = !wanted.every(([key, values]) => values.has(row.dataset[key]));
      const mark = markOf.get(row.dataset.index);
      if (mark) mark.toggleAttribute("hidden", row.hidden);
    }
  };
  for (const set of filters) set.addEventListener("change", filter);

  const titles = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  for (const title of titles) {
    const button = title.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const falling = title.getAttribute("aria-sort") === "ascending";
      for (const other of titles) other.removeAttribute("aria-sort");
      title.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const column = titles.indexOf(title);
      const sorted = rows.slice().sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return (x < y ? -1 : x > y ? 1 : 0) * (falling ? -1 : 1);
      });
      table.tBodies[0].append(...sorted);
    });
  }
})();
