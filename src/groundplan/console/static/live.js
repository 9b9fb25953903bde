// Live parts of a page: an element with data-live="URL" is replaced by that fragment every few seconds while the page is visible.
// Without this file every page works; it only has to be reloaded by hand.
"use strict";
// Who presses twice sends once: the second answer would tell that it was done already, as if the first had failed.
let sent = new WeakSet();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (sent.has(form)) { event.preventDefault(); return; }
  sent.add(form);
  setTimeout(() => sent.delete(form), 10000);
});
addEventListener("pageshow", () => { sent = new WeakSet(); }); // by the back button, with what was typed
const PATIENCE_MS = 8000; // what was not renewed for longer is told to be old
const to = (where, link) => where.querySelector(`a[href="${CSS.escape(link.getAttribute("href"))}"]`);
for (const part of document.querySelectorAll("[data-live]")) {
  const every = Number(part.dataset.every || 2000);
  let shown = part.innerHTML;
  let since = new Date(), asking = 0; // asking: since when nothing was answered
  const told = document.createElement("p");
  told.className = "notice notice-problem";
  told.setAttribute("role", "status");
  told.hidden = true;
  part.before(told);
  let paused = false, held = 0; // held: since when a selection holds the renewal up
  const clock = () => since.toISOString().slice(11, 19);
  if ("pause" in part.dataset) {
    const pause = document.createElement("button");
    pause.type = "button";
    pause.className = "link pause";
    const say = () => { pause.textContent = paused ? `Paused at ${clock()} UTC. Go on` : "Pause updates"; };
    pause.addEventListener("click", () => { paused = !paused; say(); });
    say();
    part.before(pause);
  }
  setInterval(() => {
    const old = asking && Date.now() - asking > PATIENCE_MS;
    const text = old ? `Not updated since ${clock()} UTC, as the console or its database does not answer. It goes on by itself.` : "";
    if (told.textContent !== text) { told.textContent = text; told.hidden = !text; }
  }, 500);
  // A link that was opened in another tab keeps the focus, and holds nothing up; a field or a button does.
  const typing = () => part.contains(document.activeElement) && !document.activeElement.hasAttribute("href");
  // What somebody selects to copy it stays selected for a minute.
  const selecting = () => {
    const chosen = getSelection();
    held = chosen.isCollapsed || !part.contains(chosen.anchorNode) ? 0 : held || Date.now();
    return held && Date.now() - held < 60000;
  };
  const renew = async () => {
    if (!document.hidden && !paused && !typing() && !selecting()) {
      asking = asking || Date.now();
      try {
        const answer = await fetch(part.dataset.live, { headers: { accept: "text/html" } });
        if (answer.ok) {
          const text = await answer.text();
          asking = 0;
          since = new Date();
          if (text !== shown) {
            const swung = part.querySelectorAll(".swung").length;
            const at = part.contains(document.activeElement) ? document.activeElement : null;
            const row = at?.closest("tr")?.querySelector("a");
            part.innerHTML = text;
            shown = text;
            const again = row ? to(part, row)?.closest("tr") : part;
            if (at && again) to(again, at)?.focus({ preventScroll: true });
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
