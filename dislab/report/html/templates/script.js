// Tabs, search, sorting and tooltips. Without it everything is shown, in the order that the page was written in.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tabs: the address names the tab, so that a link leads to it.
  const tabs = all("[role=tab]");
  const select = (tab, focus) => {
    for (const other of tabs) {
      const on = other === tab;
      other.setAttribute("aria-selected", on);
      other.tabIndex = on ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !on;
    }
    const others = document.getElementById("others");
    if (others) {
      const number = +document.getElementById(tab.getAttribute("aria-controls")).dataset.others;
      others.textContent = `${document.documentElement.classList.contains("all-scores") ? "−" : "+"} Other scores ${number}`;
      others.hidden = !number;
    }
    if (focus) tab.focus();
  };
  const current = () => tabs.find((tab) => tab.getAttribute("aria-selected") === "true");
  const named = () => tabs.find((tab) => tab.hash === location.hash);
  for (const tab of tabs) {
    tab.addEventListener("click", (event) => {
      event.preventDefault();
      history.replaceState(null, "", tab.hash);
      select(tab);
    });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.length, End: tabs.length }[event.key];
      if (!step) return;
      event.preventDefault();
      const at = tabs.indexOf(tab) + step;
      select(Math.abs(step) > 1 ? tabs.at(step > 0 ? -1 : 0) : tabs.at(at % tabs.length), true);
    });
  }
  if (tabs.length) {
    select(named() || tabs[0]);
    addEventListener("hashchange", () => named() && select(named()));
  }

  const others = document.getElementById("others");
  others?.addEventListener("click", () => {
    const on = document.documentElement.classList.toggle("all-scores");
    others.setAttribute("aria-pressed", on);
    select(current());
  });

  // Search: a row stays if it has every word, and what is chosen beside it.
  const search = document.getElementById("search");
  const choices = all("[data-choice]");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = Object.fromEntries(choices.map((choice) => [choice.dataset.choice, choice.value]));
    const fits = (data, name) => !chosen[name] || data[name] === chosen[name];
    const counts = new Map(tabs.map((tab) => [tab, 0]));
    for (const board of all(".board")) {
      let shown = 0;
      for (const row of all("tr[data-search]", board)) {
        row.hidden =
          !words.every((word) => row.dataset.search.includes(word)) ||
          !fits(row.dataset, "supervision") || !fits(board.dataset, "protocol") || !fits(board.dataset, "images");
        shown += !row.hidden;
      }
      const divider = board.querySelector(".divider");
      if (divider) divider.hidden = !all(".references tr[data-search]", board).some((row) => !row.hidden);
      board.hidden = !shown;
      const tab = tabs.find((one) => one.getAttribute("aria-controls") === board.closest(".tab").id);
      counts.set(tab, counts.get(tab) + shown);
    }
    for (const [tab, count] of counts) tab.querySelector("small").textContent = count;
    document.getElementById("nothing").hidden = counts.get(current()) > 0;
  };
  search?.addEventListener("input", filter);
  choices.forEach((choice) => choice.addEventListener("change", filter));
  tabs.forEach((tab) => tab.addEventListener("click", filter));

  // Sorting: best first, then worst first. The reference points stay where they are.
  for (const button of all("table.scores thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const column = head.cellIndex;
      const before = head.getAttribute("aria-sort");
      const first = button.dataset.kind === "text" || button.dataset.better === "down" ? "ascending" : "descending";
      const order = before === first ? (first === "ascending" ? "descending" : "ascending") : first;
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const body = head.closest("table").tBodies[0];
      if (!body.classList.contains("ranked")) return;
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // none is last
        const difference = button.dataset.kind === "text" ? x.localeCompare(y) : x - y;
        return order === "ascending" ? difference : -difference;
      };
      const rows = [...body.rows].sort(compare);
      rows.forEach((row, index) => (row.querySelector(".place").textContent = index + 1));
      body.append(...rows);
    });
  }

  // Tooltips: the browser's own become ours, which also open by the keyboard.
  const tip = document.getElementById("tip");
  for (const element of all("[title]")) {
    element.dataset.tip = element.title;
    element.removeAttribute("title");
  }
  const show = (element) => {
    tip.textContent = element.dataset.tip;
    tip.hidden = false;
    const box = element.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
    const above = box.top > tip.offsetHeight + 12;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above ? box.top - tip.offsetHeight - 6 : box.bottom + 6) + scrollY}px`;
  };
  const hide = () => (tip.hidden = true);
  const owner = (event) => event.target.closest?.("[data-tip]");
  document.addEventListener("mouseover", (event) => (owner(event) ? show(owner(event)) : hide()));
  document.addEventListener("focusin", (event) => (owner(event) && event.target.matches(":focus-visible") ? show(owner(event)) : hide()));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

  // What moves can be stopped, and stands still at first where the reader prefers less motion.
  for (const button of all(".moving button")) {
    const picture = button.closest("figure");
    const pause = (still) => {
      picture.classList.toggle("paused", still);
      button.textContent = still ? "Play" : "Pause";
    };
    button.addEventListener("click", () => pause(!picture.classList.contains("paused")));
    pause(matchMedia("(prefers-reduced-motion: reduce)").matches);
  }

  // A figure as a file of its own: with the page's colours and type inside.
  for (const button of all("button[data-svg]")) {
    button.addEventListener("click", () => {
      const shown = all("svg.chart", button.closest("figure")).find((svg) => svg.clientWidth);
      const copy = shown.cloneNode(true);
      const styles = getComputedStyle(document.documentElement);
      const names = ["ground", "surface", "rule", "rule2", "text", "muted", "accent", "tint", "s1", "s2", "s3", "s4", "s5", "sans"];
      const rules = [...document.styleSheets[0].cssRules].map((rule) => rule.cssText).filter((text) => text.includes(".chart"));
      const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
      style.textContent = `svg{${names.map((name) => `--${name}:${styles.getPropertyValue(`--${name}`)}`).join(";")};background:var(--ground)}${rules.join("")}`;
      copy.prepend(style);
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
      link.download = `${button.dataset.svg}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
})();
