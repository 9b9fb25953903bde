// Passkeys: asks the browser to make or use one and hands its answer to the API. Without this file links still sign in.
"use strict";
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
const text = (data) => btoa(String.fromCharCode(...new Uint8Array(data))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const named = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));
const written = (made) => {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (made.response[name]) response[name] = text(made.response[name]);
  }
  return { id: made.id, rawId: text(made.rawId), type: made.type, response, clientExtensionResults: {} };
};
const send = async (path, csrf, body) => {
  const headers = { "content-type": "application/json", ...(csrf ? { "x-csrf-token": csrf } : {}) };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(`${told.error.message}. ${told.error.hint}`);
  return told;
};
const acts = {
  async register(csrf, label) {
    const { ceremony, options } = await send("/api/passkeys/registration", csrf, {});
    const publicKey = {
      ...options, challenge: bytes(options.challenge), user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: named(options.excludeCredentials),
    };
    const made = await navigator.credentials.create({ publicKey });
    await send("/api/passkeys", csrf, { ceremony, response: written(made), label });
  },
  async enter() {
    const { ceremony, options } = await send("/api/sign-in/passkey/options", "", {});
    const publicKey = { ...options, challenge: bytes(options.challenge), allowCredentials: named(options.allowCredentials) };
    const made = await navigator.credentials.get({ publicKey });
    await send("/api/sign-in/passkey", "", { ceremony, response: written(made) });
  },
};
for (const form of document.querySelectorAll("form[data-passkey]")) {
  const told = form.querySelector("[role=status]");
  const button = form.querySelector("button");
  button.disabled = !window.PublicKeyCredential;
  if (button.disabled) told.textContent = "This browser has no passkeys here: open the console as localhost or by its own name.";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    told.textContent = "Waiting for your passkey…";
    try {
      await acts[form.dataset.passkey](form.dataset.csrf || "", form.elements.label ? form.elements.label.value : "");
      location.assign(form.dataset.next);
    } catch (error) {
      told.textContent = error.name === "NotAllowedError" ? "Nothing was signed. Try again." : error.message;
    }
  });
}
