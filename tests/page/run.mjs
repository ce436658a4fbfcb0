// Runs the tests of the page, one after the other, and says what came of them as libtest does. Arguments: parts of names.

import { end, tidy } from "./lab.mjs";

const FILES = ["pure", "overview", "servers", "config", "recovery", "people", "login", "hostile", "many"];

const wanted = process.argv.slice(2);
const all = [];
for (const file of FILES) {
  const { tests, before, after } = await import(`./${file}.mjs`);
  const chosen = tests.filter(
    ({ name }) => wanted.length === 0 || wanted.some((part) => `${file}::${name}`.includes(part)),
  );
  if (chosen.length > 0) all.push({ file, before, after, chosen });
}
const total = all.reduce((sum, { chosen }) => sum + chosen.length, 0);
console.log(`\nrunning ${total} tests`);
const failures = [];
const begun = Date.now();
for (const { file, before, after, chosen } of all) {
  try {
    await before?.();
  } catch (error) {
    for (const { name } of chosen) failures.push([`${file}::${name}`, error]);
    console.log(`${file}: ${error.stack}`);
    await after?.();
    continue;
  }
  for (const { name, body } of chosen) {
    const full = `${file}::${name}`;
    try {
      await body();
      console.log(`test ${full} ... ok`);
    } catch (error) {
      failures.push([full, error]);
      console.log(`test ${full} ... FAILED`);
      await tidy();
    }
  }
  await after?.();
}
await end();
for (const [name, error] of failures) console.log(`\n---- ${name} ----\n${error.stack}`);
const seconds = ((Date.now() - begun) / 1000).toFixed(2);
console.log(
  `\ntest result: ${failures.length ? "FAILED" : "ok"}. ${total - failures.length} passed; ${failures.length} failed; 0 ignored; 0 measured; 0 filtered out; finished in ${seconds}s\n`,
);
process.exit(failures.length ? 1 : 0);
