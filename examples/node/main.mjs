// Calls Python from Node.js: node main.mjs [COMMAND ARGUMENTS...], by default `venvoy worker --stdio-json`.

import { PythonError, Worker } from "./venvoy.mjs";

const command = process.argv.length > 2 ? process.argv.slice(2) : ["venvoy", "worker", "--stdio-json"];
const worker = new Worker(command);
await worker.ready;

await worker.define(`
import statistics

def describe(args):
    return {"mean": statistics.mean(args["numbers"]), "count": len(args["numbers"])}
`);

console.log(await worker.call("describe", { numbers: [1, 2, 3, 6] }));
console.log(await Promise.all([4, 9, 16].map((number) => worker.call("math:sqrt", number))));
try {
  await worker.call("describe", { numbers: [] });
} catch (error) {
  console.log(error instanceof PythonError, error.name, error.traceback.trim().split("\n").length > 3);
}
await worker.close();
