// Label review. A decision is a row of label_fixes.csv, kept in this browser under the fingerprint
// of the data; `to` is the value chosen, which keeps the label where it equals `from`.
{
  const review = document.getElementById("review");
  const [count, download, restart] = review.querySelectorAll("output, button");
  const store = `label_fixes ${review.dataset.fingerprint}`;
  const columns = ["id", "field", "from", "to", "confidence", "note"];
  const keyOf = (item) => `${item.dataset.field} of ${item.dataset.id}`;
  const changes = () => Object.values(decisions).filter((row) => row.to !== row.from);
  let decisions = {}, kept = true;

  function access(work) { // a browser may refuse its memory to a page
    try {
      work();
    } catch {
      kept = false;
    }
  }
  const load = () => access(() => (decisions = JSON.parse(localStorage.getItem(store)) || {}));
  const save = () => access(() => localStorage.setItem(store, JSON.stringify(decisions)));

  function show() {
    for (const item of review.querySelectorAll("fieldset")) {
      const row = decisions[keyOf(item)];
      item.classList.toggle("decided", Boolean(row));
      for (const radio of item.querySelectorAll("input")) radio.checked = row?.to === radio.value;
    }
    const all = Object.keys(decisions).length, rows = changes();
    const dropped = rows.filter((row) => row.to === "drop").length;
    count.textContent =
      `${all} reviewed: ${all - rows.length} keep, ${rows.length - dropped} fix, ${dropped} drop.` +
      (kept ? "" : " This browser cannot remember them: download before you leave.");
    download.disabled = !rows.length;
  }

  review.addEventListener("change", (event) => {
    const item = event.target.closest("fieldset");
    if (kept) load(); // another page may have added to them
    decisions[keyOf(item)] = { ...item.dataset, to: event.target.value, confidence: 1 };
    save();
    show();
  });

  download.addEventListener("click", () => {
    const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
    const rows = changes().map((row) => columns.map((name) => quoted(row[name])).join(","));
    const text = [columns.join(","), ...rows, ""].join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "reviewed_fixes.csv";
    link.click();
  });

  restart.addEventListener("click", () => {
    if (!confirm("Forget every decision on these data?")) return;
    decisions = {};
    save();
    show();
  });

  addEventListener("storage", () => { load(); show(); }); // another page has changed them
  load();
  show();
}
