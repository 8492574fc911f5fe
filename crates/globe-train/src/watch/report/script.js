const find = document.getElementById("find");
const all = document.getElementById("all");
const count = document.getElementById("count");
const articles = [...document.querySelectorAll("article")];
const texts = articles.map((article) => article.textContent.toLowerCase());
function filter() {
  const wanted = find.value.trim().toLowerCase();
  let shown = 0;
  articles.forEach((article, i) => {
    article.hidden = !texts[i].includes(wanted);
    shown += article.hidden ? 0 : 1;
  });
  count.textContent = wanted ? `${shown} found` : "";
}
find.addEventListener("input", filter);
all.addEventListener("change", () => {
  document.querySelectorAll(".answer").forEach((answer) => {
    answer.open = all.checked;
  });
});
