// Shows the titles of a chart's columns as tooltips that follow the pointer, and the arrow keys where a chart has the focus.
for (const plot of document.querySelectorAll(".plot")) {
  const columns = [...plot.querySelectorAll(".hit")];
  if (columns.length === 0) continue;
  // The browser would show its own tooltip of a title as well.
  const texts = columns.map((column) => {
    const title = column.querySelector("title");
    title.remove();
    return title.textContent;
  });
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  plot.append(tip);
  let shown = -1;
  const show = (index) => {
    columns[shown]?.classList.remove("on");
    shown = index;
    tip.hidden = index < 0;
    if (index < 0) return;
    columns[index].classList.add("on");
    tip.textContent = texts[index];
    // The tooltip stands beside its column, on the side that has more space.
    const [box, column] = [plot.getBoundingClientRect(), columns[index].getBoundingClientRect()];
    const center = column.left + column.width / 2 - box.left;
    const left = center > box.width / 2 ? center - tip.offsetWidth - 14 : center + 14;
    tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
  };
  const at = (event) => {
    const column = event.target.closest(".hit");
    if (column) show(columns.indexOf(column));
  };
  plot.addEventListener("pointermove", at);
  plot.addEventListener("pointerdown", at);
  plot.addEventListener("pointerleave", () => show(-1));
  plot.addEventListener("focus", () => shown < 0 && plot.matches(":focus-visible") && show(0));
  plot.addEventListener("blur", () => show(-1));
  plot.addEventListener("keydown", (event) => {
    const last = columns.length - 1;
    const next = {
      ArrowLeft: Math.max(shown - 1, 0),
      ArrowRight: Math.min(shown + 1, last),
      Home: 0,
      End: last,
      Escape: -1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    show(next);
  });
}
