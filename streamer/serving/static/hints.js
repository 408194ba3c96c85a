// What the words mean. A hint opens under its word.

import { $, el, say } from "./dom.js";

const TEXTS = {
  events: "Clicks, purchases and catalogue changes that this worker takes in.",
  profiles: "Profiles sent out because they changed enough to matter to others. Small changes wait up to a minute and go out together.",
  waiting: "Events that are in Kafka and not yet in a profile. Zero most of the time; it grows while a worker starts again, and then shrinks.",
  delay: "How old the oldest event is that is not yet in a profile.",
  memory: "People whose profile is held in memory right now. All others are on disk and are loaded when they do something.",
  rejected: "Records that could not be counted, such as broken JSON. They are kept aside with the reason; “streamer rejected list” shows them.",
  share: "How much of all this person's interests goes to this one. It fades by half in a month without new events. All shares together make 100 %.",
  recent: "The same share over the last day or so. A mark to the right of the bar's end means that the interest is growing, to the left that it is cooling.",
  lift: "How much stronger the interest is than that of people on average: ×3 is three times the average, ×1 is just average.",
  version: "Counts how often this profile was published. Others use it to skip repeats.",
  vector: "The person's taste as a list of numbers. People and items whose numbers point the same way go together. Vectors of the same model can be compared.",
  chance: "How likely the model thinks it is that this very item comes next, among all items.",
  overlap: "For each interest, the smaller one of the two shares, added up: 100 % would be two people with the very same interests.",
  map: "People with like interests lie close together. Only nearness means something; left, right, up and down do not.",
  top: "People of whom this is the strongest interest.",
  hits: "Before the model learns from an event, it has to guess the item: a hit is an item among the first 20 of its list. So it is only ever judged on what it has not seen.",
  popularity: "The simplest rival: a list of what most people took lately, the same for everyone.",
  expected: "How often the item should have been among the first 20 if the probabilities that the model gave were right. The closer to the hits, the more its probabilities can be trusted.",
  loss: "How surprised the model was by what happened, in nats. Lower is better; being one lower means that it gave the item e ≈ 2.7 times the probability.",
  cold: "People with so few events that there is little to go by.",
  experts: "The model is a team. Each member ranks the items in its own way, and those who have been right more often get more say.",
  partition: "All people are split into parts by their id. Each part is looked after by one worker at a time, and moves to another worker when that one leaves.",
  topic: "A named log in Kafka: clicks, purchases and items come in, and signals carry what was learned about an item to the worker that looks after it.",
};

/** A word that explains itself when it is clicked. */
export const hint = (name, text) => el("button", { type: "button", class: "hint", "data-hint": name }, text);

/** Open hints on click. One bubble is enough: it closes by itself with Escape or a click elsewhere. */
export function start() {
  document.addEventListener("click", ({ target }) => {
    const word = target.closest("[data-hint]");
    if (word) open(word);
  });
}

function open(word) {
  const tip = $("tip"), { left, bottom } = word.getBoundingClientRect();
  say(tip, TEXTS[word.dataset.hint]);
  tip.style.setProperty("--left", `${left}px`);
  tip.style.setProperty("--top", `${bottom + 8}px`);
  if (!tip.matches(":popover-open")) tip.showPopover({ source: word });
}
