// Runs once for the review's grid: a button says whether a tag fits its picture.
element.addEventListener("click", (event) => {
  const button = event.target.closest(".cs-answer");
  if (!button) return;
  const { item, tag, accepted } = button.dataset;
  for (const other of button.parentElement.children) other.disabled = true;
  trigger("answer", { item: Number(item), tag, accepted: accepted === "1" });
});
