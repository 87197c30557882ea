// Draws every panel from the JSON beside it, one a frame, so that the page stays responsive.
(() => {
  "use strict";
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const settings = {
    responsive: true,
    displaylogo: false,
    displayModeBar: false,
  };
  const sources = Array.from(document.querySelectorAll("script[data-for]"));

  const draw = async (source) => {
    const place = document.getElementById(source.dataset.for);
    const panel = JSON.parse(source.textContent);
    // A finger that scrolls the page must not zoom the figure instead.
    if (touch) panel.layout.dragmode = false;
    await Plotly.newPlot(place, panel.data, panel.layout, settings);
    for (const key of place.parentElement.querySelectorAll(".key")) {
      key.addEventListener("click", () => toggle(place, key));
    }
  };

  const toggle = (place, key) => {
    const shown = key.getAttribute("aria-pressed") !== "true";
    key.setAttribute("aria-pressed", String(shown));
    const chosen = [];
    place.data.forEach((trace, i) => {
      if (trace.legendgroup === key.dataset.group) chosen.push(i);
    });
    Plotly.restyle(place, { visible: shown }, chosen);
  };

  const next = async (i) => {
    if (i === sources.length) {
      document.documentElement.dataset.drawn = "yes";
      return;
    }
    await draw(sources[i]);
    requestAnimationFrame(() => next(i + 1));
  };
  next(0);

  // Plots have a size in pixels; paper has another. A view box lets them scale.
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) {
      part.dataset.was = part.open ? "open" : "";
      part.open = true;
    }
    for (const box of document.querySelectorAll(".plot .svg-container")) {
      const { width, height } = box.getBoundingClientRect();
      if (!width) continue;
      box.style.aspectRatio = `${width} / ${height}`;
      for (const svg of box.querySelectorAll(".main-svg")) {
        svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      }
    }
  });
  window.addEventListener("afterprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = part.dataset.was === "open";
    for (const svg of document.querySelectorAll(".plot .main-svg")) svg.removeAttribute("viewBox");
  });
})();
