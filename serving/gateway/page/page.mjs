// Makes the page quicker, never possible: without this, forms and links do the same by themselves.

const main = () => document.getElementById("live");

// Shows an answer of the server in place of what is there, and says what changed.
async function show(response, address) {
  const text = await response.text();
  const next = new DOMParser().parseFromString(text, "text/html");
  const live = next.getElementById("live");
  if (!live) {
    location.assign(address);
    return;
  }
  main().replaceWith(document.adoptNode(live));
  document.title = next.title;
  prepare();
  const heading = document.getElementById("list");
  if (heading) heading.focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

async function go(address, options, remember) {
  main().setAttribute("aria-busy", "true");
  try {
    const response = await fetch(address, options);
    const at = response.redirected ? response.url : address;
    if (remember || response.redirected) history.pushState({}, "", tidy(at));
    await show(response, at);
  } catch {
    main().removeAttribute("aria-busy");
    const status = document.getElementById("status");
    const line = document.createElement("p");
    line.textContent = "The server does not answer. Try again in a moment.";
    if (status) status.append(line);
  }
}

// What was done belongs to one answer, not to an address that is opened again.
function tidy(address) {
  const url = new URL(address, location.href);
  url.searchParams.delete("did");
  url.searchParams.delete("item");
  return url.pathname === "/" ? url : new URL(address, location.href);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-live]")) return;
  event.preventDefault();
  const data = new FormData(form);
  if (form.method === "get") {
    go(`${form.action}?${new URLSearchParams(data)}`, {}, true);
  } else {
    const upload = form.enctype === "multipart/form-data";
    go(form.action, { method: "POST", body: upload ? data : new URLSearchParams(data) }, false);
  }
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || url.hash || url.pathname.startsWith("/v1/")) return;
  event.preventDefault();
  go(url.href, {}, true);
});

// Files that are too large are said before they are sent.
document.addEventListener("change", (event) => {
  const input = event.target;
  if (!input.matches("input[data-most-bytes]")) return;
  const most = Number(input.dataset.mostBytes);
  const large = [...input.files].find((file) => file.size > most);
  const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
  input.setCustomValidity(
    large ? `${large.name} has ${mib(large.size)} MiB; at most ${mib(most)} MiB are taken.` : "",
  );
  if (large) input.reportValidity();
});

addEventListener("popstate", () => go(location.href, {}, false));

// A button beside each field of sounds, where the browser can record.
function prepare() {
  if (!navigator.mediaDevices || !window.MediaRecorder) return;
  for (const input of document.querySelectorAll("input[data-record]")) {
    const button = document.getElementById("record").content.firstElementChild.cloneNode(true);
    button.addEventListener("click", () => record(input, button));
    input.closest("label").after(button);
  }
}

async function record(input, button) {
  if (button.recorder) {
    button.recorder.stop();
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    const recorder = new MediaRecorder(stream);
    button.recorder = recorder;
    button.textContent = "Stop recording";
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", () => {
      for (const track of stream.getTracks()) track.stop();
      const files = new DataTransfer();
      files.items.add(new File(parts, "recorded", { type: recorder.mimeType }));
      input.files = files.files;
      button.recorder = null;
      button.textContent = "Record again";
    });
    recorder.start();
    setTimeout(() => recorder.state === "recording" && recorder.stop(), 10_000);
  } catch {
    button.textContent = "No microphone to be had";
  }
}

prepare();
