// Runs once for the full picture: opens it above the page whenever a new one arrives.
const shown = () => element.querySelector("dialog");
const tiles = () => [...document.querySelectorAll(".cs-hit")];
const tileOf = (item) => tiles().find((tile) => tile.dataset.item === item);

const step = (distance) => {
  const now = tiles().indexOf(tileOf(shown()?.dataset.item));
  if (now >= 0) tiles()[now + distance]?.click();
};

watch("value", () => {
  const dialog = shown();
  if (!dialog || dialog.open) return;
  const item = dialog.dataset.item;
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "similar") tileOf(item)?.focus();
  });
  dialog.showModal();
  const film = dialog.querySelector("video");
  film?.addEventListener("error", () => {
    // A film that the browser cannot play is shown by its moment.
    const still = Object.assign(new Image(), { src: film.poster, alt: film.ariaLabel });
    film.replaceWith(still);
  });
  dialog.addEventListener("close", () => film?.pause());
  const now = tiles().indexOf(tileOf(item));
  const [previous, next] = dialog.querySelectorAll("[data-step]");
  previous.disabled = now <= 0;
  next.disabled = now < 0 || now === tiles().length - 1;
});

element.addEventListener("click", (event) => {
  const similar = event.target.closest(".cs-similar");
  const thumb = event.target.closest(".cs-thumb");
  const stepper = event.target.closest("[data-step]");
  if (similar) {
    shown().close("similar");
    trigger("find_similar", { item: Number(similar.dataset.item) });
    window.scrollTo({ top: 0 }); // the best of the new answers stand at the top
  } else if (thumb) {
    shown().close("judged");
    trigger("judge", { item: Number(thumb.dataset.item), relevant: thumb.dataset.relevant === "1" });
  } else if (stepper) {
    step(Number(stepper.dataset.step));
  } else if (event.target.closest(".cs-close") || event.target === shown()) {
    shown().close(); // a click on the dialog itself is one beside its content
  }
});

element.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") step(1);
  if (event.key === "ArrowLeft") step(-1);
});
