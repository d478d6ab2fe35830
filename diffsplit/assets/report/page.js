"use strict";
// The page is complete without this script. It adds sorting, filters, copying, a switch between
// light and dark, and a viewer that enlarges pictures and slides between truth and result.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // Light and dark.
  const theme = byId("theme");
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  try {
    const kept = localStorage.getItem("diffsplit-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* a page from a file may have no storage */ }
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("diffsplit-theme", root.dataset.theme); } catch { /* as above */ }
    nameTheme();
  });
  system.addEventListener("change", nameTheme);
  theme.hidden = false;
  nameTheme();

  // Sorting, within each task.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    if (cell.dataset.value === undefined) return cell.textContent.trim().toLowerCase();
    const number = parseFloat(cell.dataset.value);
    return Number.isNaN(number) ? null : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  const sortBy = (table, column, direction) => {
    for (const body of table.tBodies) {
      const rows = all("tr:not(.task)", body);
      rows.forEach((row, place) => { row.dataset.place ??= String(place); });
      rows.sort((a, b) => {
        const first = Number(a.dataset.place) - Number(b.dataset.place);
        if (!direction) return first;
        const x = valueOf(a, column), y = valueOf(b, column);
        if (x === null || y === null) return (x === null) - (y === null) || first;
        return direction * compare(x, y) || first;
      });
      body.append(...rows);
    }
  };
  for (const table of all("table.data")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.title = "Sort by this column within each task";
      head.append(button);
      const first = head.dataset.better === "1" ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === first ? second : now === second ? null : first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) head.setAttribute("aria-sort", next);
        sortBy(table, column, next === "ascending" ? 1 : next ? -1 : 0);
      });
    });
  }

  // Filters.
  const words = byId("filter-words"), task = byId("filter-task"), count = byId("filter-count");
  const filter = () => {
    const wanted = words.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, total = 0;
    for (const body of byId("results-table").tBodies) {
      let inTask = 0;
      for (const row of all("tr:not(.task)", body)) {
        const text = row.cells[0].textContent.toLowerCase();
        const fits = (!task.value || body.dataset.task === task.value) &&
          (!wanted.length || wanted.some((word) => text.includes(word)));
        row.hidden = !fits;
        inTask += fits;
        total += 1;
      }
      body.hidden = !inTask;
      shown += inTask;
    }
    for (const part of all("[data-of-task]")) {
      part.hidden = Boolean(task.value) && part.dataset.ofTask !== task.value;
    }
    count.textContent = `${shown} of ${total} lines`;
  };
  if (words) {
    words.addEventListener("input", filter);
    task.addEventListener("change", filter);
    words.closest(".tools").hidden = false;
    filter();
  }

  // Copying.
  const select = (element) => getSelection().selectAllChildren(element);
  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = byId(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        select(source);
        button.textContent = "Selected; press Ctrl+C";
      }
    });
  }

  // The viewer.
  const viewer = byId("viewer");
  if (!viewer || !viewer.showModal) return;
  const [under, over] = all(".stage img", viewer);
  const slide = byId("slide"), stage = over.parentElement;
  const pictures = all(".strip img");
  let place = 0;
  const cut = () => { stage.style.setProperty("--cut", `${slide.value}%`); };
  const show = (index) => {
    place = (index + pictures.length) % pictures.length;
    const picture = pictures[place];
    const truth = picture.dataset.truth ? byId(picture.dataset.truth) : null;
    byId("viewer-title").textContent = picture.alt;
    byId("slide-name").textContent = picture.dataset.name || "";
    over.src = picture.src;
    over.alt = picture.alt;
    under.src = (truth || picture).src;
    slide.parentElement.hidden = !truth;
    slide.value = truth ? 50 : 0;
    const base = truth || picture;
    const width = base.naturalWidth || 64, height = base.naturalHeight || 64;
    const fit = Math.min((innerWidth * 0.98 - 40) / width, (innerHeight * 0.7) / height);
    const scale = fit >= 1 ? Math.floor(fit) : fit;
    stage.style.width = `${width * scale}px`;
    stage.style.height = `${height * scale}px`;
    cut();
  };
  slide.addEventListener("input", cut);
  pictures.forEach((picture, index) => {
    const button = document.createElement("button");
    button.type = "button";
    picture.replaceWith(button);
    button.append(picture);
    button.title = "Enlarge";
    button.addEventListener("click", () => { show(index); viewer.showModal(); });
  });
  const visible = (index) => pictures[index].offsetParent !== null;
  const step = (by) => {
    let index = place;
    do index = (index + by + pictures.length) % pictures.length;
    while (!visible(index) && index !== place);
    show(index);
  };
  byId("viewer-previous").addEventListener("click", () => step(-1));
  byId("viewer-next").addEventListener("click", () => step(1));
  byId("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
})();
