// MathJax renders what pymdownx.arithmatex marked, again after each page that material loads without a reload.
window.MathJax = {
  tex: {
    inlineMath: [["\\(", "\\)"]],
    displayMath: [["\\[", "\\]"]],
    processEscapes: true,
    processEnvironments: true,
  },
  options: {
    ignoreHtmlClass: ".*|",
    processHtmlClass: "arithmatex",
    enableMenu: false, // the menu would load parts of MathJax that this site does not carry
  },
};

document.addEventListener("DOMContentLoaded", () => {
  if (typeof document$ === "undefined") return;
  document$.subscribe(() => {
    if (!MathJax.startup || !MathJax.startup.promise) return;
    MathJax.startup.promise.then(() => {
      MathJax.typesetClear();
      MathJax.texReset();
      return MathJax.typesetPromise();
    });
  });
});
