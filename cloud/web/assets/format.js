// Numbers and times as people read them. Pure functions.

const LOCALE = undefined; // the viewer's own
const percent = new Intl.NumberFormat(LOCALE, { style: "percent", maximumFractionDigits: 0 });
const count = new Intl.NumberFormat(LOCALE);
const clock = new Intl.DateTimeFormat(LOCALE, { hour: "numeric", minute: "2-digit" });
const clockToSecond = new Intl.DateTimeFormat(LOCALE, { hour: "numeric", minute: "2-digit", second: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat(LOCALE, {
  weekday: "short", day: "numeric", month: "short", hour: "numeric", minute: "2-digit",
});
const tenths = new Intl.NumberFormat(LOCALE, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** A length of time in seconds, in its one fitting unit: "0.4 s", "12 s", "3 min", "2 h", "5 d". */
export function span(seconds) {
  if (!(seconds > 0)) return `${tenths.format(0)} s`;
  if (seconds < 9.95) return `${tenths.format(seconds)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 99.5 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 47.5 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${count.format(Math.round(seconds / 86400))} d`;
}

/** A score from 0 to 1 in percent; never "0 %" for what is more than nothing, nor "100 %" for what is less than sure. */
export function score(value) {
  if (value > 0 && value < 0.005) return `<${percent.format(0.01)}`;
  if (value < 1 && value >= 0.995) return `>${percent.format(0.99)}`;
  return percent.format(value);
}

/** Milliseconds: "0.8 ms", "18 ms", "1.2 s". */
export function milliseconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 9.95) return `${tenths.format(value)} ms`;
  if (value < 999.5) return `${Math.round(value)} ms`;
  return span(value / 1000);
}

export function number(value) {
  return count.format(value);
}

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let step = 0;
  while (value >= 999.5 && step < units.length - 1) { value /= 1000; step += 1; }
  return `${step && value < 9.95 ? tenths.format(value) : Math.round(value)} ${units[step]}`;
}

/** The time of day in the viewer's place; with the day when it is another one than `nowMs`. */
export function timeOfDay(moment, nowMs) {
  const date = new Date(moment);
  return (Math.abs(nowMs - date.getTime()) < 12 * 3600e3 ? clock : dayAndClock).format(date);
}

/** The time of day to the second. */
export function timeToSecond(moment) {
  return clockToSecond.format(new Date(moment));
}

/** The same in UTC, for a title. */
export function utc(moment) {
  return `${new Date(moment).toISOString().replace("T", " ").replace("Z", "")} UTC`;
}

/** With a capital first, as a sentence begins. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
