// Runs once for the line about the models: asks how they are, and has the line drawn anew when
// that is not as it was.
const BUSY_MS = 2000, IDLE_MS = 10000;
let before, timer;

const look = async () => {
  if (document.hidden) return; // looks again as soon as it is seen
  let wait = IDLE_MS;
  try {
    const reply = await fetch("api/models");
    const now = reply.ok ? await reply.text() : before;
    if (now !== before) trigger("changed", {});
    before = now;
    if (now && JSON.parse(now).fill?.state === "running") wait = BUSY_MS;
  } catch {
    // The server is not there: it may come back.
  }
  clearTimeout(timer);
  timer = setTimeout(look, wait);
};

document.addEventListener("visibilitychange", look);
look();
