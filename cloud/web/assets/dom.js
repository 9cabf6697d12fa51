// What every page does with its elements.

/** The element of this id. */
export const $ = (id) => document.getElementById(id);

/** A copy of what the template of this id holds. */
export const template = (id) => $(id).content.firstElementChild.cloneNode(true);

/** Write a text; the same again is not written, so that a screen reader is not told and a selection stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
