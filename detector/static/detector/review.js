/* Single keys on the review page. Without this script its buttons and links do the same. */

(() => {
  "use strict";

  const STORE = "detector.review.keys";
  const keys = document.getElementById("keys");
  const form = document.getElementById("review-form");
  if (!keys || !form) {
    return;
  }

  // Whoever speaks to the computer, or hits keys by accident, has to be able to switch single keys off (WCAG 2.1.4).
  const on = document.getElementById("keys-on");
  try {
    on.checked = localStorage.getItem(STORE) !== "off";
  } catch {
    // Storage is blocked: the choice lasts for this page.
  }
  on.addEventListener("change", () => {
    try {
      localStorage.setItem(STORE, on.checked ? "on" : "off");
    } catch {
      // As above.
    }
  });
  keys.hidden = false;

  let isSent = false;
  form.addEventListener("submit", (event) => {
    if (isSent) {
      event.preventDefault(); // a key that is held down or hit twice
    }
    isSent = true;
  });
  window.addEventListener("pageshow", () => {
    isSent = false;
  });

  function isWriting(element) {
    return element.matches("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio])");
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isWriting(event.target)) {
      event.target.blur();
      return;
    }
    if (!on.checked || event.repeat || event.ctrlKey || event.altKey || event.metaKey || isWriting(event.target)) {
      return;
    }
    const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (target) {
      event.preventDefault();
      target.click();
    }
  });
})();
