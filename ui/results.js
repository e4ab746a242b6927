// Runs once for the grid of results: a click on a thumbnail asks for its picture, one on the button
// where nothing was found for what comes closest.
element.addEventListener("click", (event) => {
  if (event.target.closest(".cs-closest")) {
    trigger("show_closest", {});
    return;
  }
  const tile = event.target.closest(".cs-hit");
  if (tile) {
    trigger("open_picture", { item: Number(tile.dataset.item), score: tile.dataset.score });
  }
});
// Arrow keys walk through the grid, as the eye does.
element.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const tile = event.target.closest(".cs-hit");
  if (step && tile) {
    const tiles = [...element.querySelectorAll(".cs-hit")];
    tiles[tiles.indexOf(tile) + step]?.focus();
    event.preventDefault();
  }
});
