// Live parts of a page: an element with data-live="URL" is replaced by that fragment every few seconds while the page is visible.
// Without this file every page works; it only has to be reloaded by hand.
"use strict";
for (const part of document.querySelectorAll("[data-live]")) {
  const every = Number(part.dataset.every || 2000);
  let shown = part.innerHTML;
  const renew = async () => {
    if (!document.hidden && !part.contains(document.activeElement)) {
      try {
        const answer = await fetch(part.dataset.live, { headers: { accept: "text/html" } });
        if (answer.ok) {
          const text = await answer.text();
          if (text !== shown) {
            const swung = part.querySelectorAll(".swung").length;
            part.innerHTML = text;
            shown = text;
            part.classList.toggle("swinging", part.querySelectorAll(".swung").length > swung);
          }
        } else if (answer.status === 401) {
          location.reload(); // signed out since: the page says so instead of showing what was
          return;
        }
      } catch { /* the server is restarting: the next round tries again */ }
    }
    setTimeout(renew, every);
  };
  setTimeout(renew, every);
}
