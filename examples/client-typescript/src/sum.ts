// Submits a sum to a node over REST, watches it until it has ended, and prints its result:
//
//     npm ci && npm run build && npm start -- URL TOKEN_FILE 0.1 0.2
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [url, tokenFile, ...addends] = process.argv.slice(2);
if (!url || !tokenFile || addends.length === 0) {
  console.error("usage: npm start -- URL TOKEN_FILE NUMBER...   (`shallot node` names the URL and the file)");
  process.exit(2);
}
process.on("uncaughtException", (e) => {
  console.error(`sum: ${e.message}`, (e.cause as Error | undefined)?.message ?? "");
  process.exit(1);
});

const node = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${readFileSync(tokenFile, "utf8").trim()}` } });

// An answer is what was asked for, or a problem, which says what was wrong and what mends it.
function must<T>(answer: { data?: T; error?: components["schemas"]["Problem"] }): NonNullable<T> {
  if (answer.data === undefined || answer.data === null) throw new Error(`${answer.error?.reason}: ${answer.error?.message}`);
  return answer.data;
}

// Repeated with the same request_id it is the same task: so it may be tried again after anything.
const task = must(await node.POST("/v1/tasks", { body: { request_id: randomUUID(), spec: { type: "sum", sum: { addends } } } }));
const path = { task_id: task.id! };

// One line of JSON for each change, until the task has ended.
const changes = must(await node.GET("/v1/tasks/{task_id}:watch", { params: { path }, parseAs: "stream" }));
for await (const line of createInterface({ input: Readable.fromWeb(changes as ReadableStream) })) {
  const change: { result?: components["schemas"]["WatchTaskResponse"] } = JSON.parse(line);
  console.error(change.result?.task?.state);
}

process.stdout.write(must(await node.GET("/v1/tasks/{task_id}/result", { params: { path }, parseAs: "text" })));
