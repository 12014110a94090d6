// node validate.mjs FILE: prints what is wrong with an AsyncAPI document, and ends with 1 if anything is.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const worst = { error: 0, warning: 1 }; // advice is not counted
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const wrong = diagnostics.filter((d) => d.severity <= worst.warning);
for (const d of wrong) console.error(`${d.range.start.line + 1}: ${d.path.join(".")}: ${d.message}`);
if (!document || wrong.length > 0) process.exit(1);
console.log(`${document.version()} ${document.channels().length} channels, ${document.operations().length} operations, ${document.messages().length} messages`);
