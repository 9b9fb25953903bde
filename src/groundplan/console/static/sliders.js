// The number of a slider follows it while it is moved; without this script the number is the one that was asked for.
"use strict";
for (const output of document.querySelectorAll("output[data-of]")) {
  const input = document.getElementById(output.dataset.of);
  input.addEventListener("input", () => { output.textContent = input.value; });
}
