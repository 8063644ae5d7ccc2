// Keeps the element with the attribute data-live as it is on the server. What has not changed stays, and so do focus and selection.
const update = (current, next) => {
  if (current.nodeName !== next.nodeName) {
    current.replaceWith(next);
    return;
  }
  if (current.nodeValue !== next.nodeValue) current.nodeValue = next.nodeValue;
  for (const { name, value } of next.attributes ?? []) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  const [old, wanted] = [[...current.childNodes], [...next.childNodes]];
  wanted.forEach((child, at) => (at < old.length ? update(old[at], child) : current.append(child)));
  old.slice(wanted.length).forEach((child) => child.remove());
};

const live = document.querySelector("[data-live]");
if (live) {
  const state = document.getElementById("live-state");
  const source = new EventSource(live.dataset.live);
  source.onmessage = (message) => {
    const next = live.cloneNode(false);
    next.innerHTML = JSON.parse(message.data);
    update(live, next);
    state.textContent = "live";
  };
  source.onerror = () => {
    state.textContent = "not connected; trying again";
  };
}
