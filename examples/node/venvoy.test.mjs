// node --test; VENVOY_WORKER holds the command of the worker, one word a line, or it is `venvoy worker --stdio-json`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { PythonError, Worker } from "./venvoy.mjs";

const command = process.env.VENVOY_WORKER?.split("\n") ?? ["venvoy", "worker", "--stdio-json"];
const code = `
import asyncio, os, time, venvoy_worker

def double(args): return args * 2
def fail(args): raise KeyError(args)
def leave(args): os._exit(7)
async def nap(args): await asyncio.sleep(args)
def steps(args):
    for n in range(args): venvoy_worker.progress(n + 1, args, "step")
def say(args): print(args)
`;

async function started(t, options = {}, ...more) {
  const worker = new Worker([...command, ...more], options);
  t.after(() => worker.close());
  await worker.define(code);
  return worker;
}

test("calls give their results, many at once and large ones too", async (t) => {
  const worker = await started(t);
  assert.ok((await worker.ready).pid > 0);
  const numbers = [...Array(300).keys()];
  const doubled = await Promise.all(numbers.map((number) => worker.call("double", number)));
  assert.deepEqual(doubled, numbers.map((number) => 2 * number));
  assert.equal((await worker.call("double", "ä".repeat(1_000_000))).length, 2_000_000);
  await worker.ping();
});

test("what Python raises is an error with its name and traceback", async (t) => {
  const worker = await started(t);
  await assert.rejects(worker.call("fail", "x"), (error) => {
    assert.ok(error instanceof PythonError);
    assert.equal(error.name, "KeyError");
    return error.traceback.includes("in fail");
  });
  await assert.rejects(worker.define("x = = 1"), { name: "SyntaxError" });
});

test("a call can be cancelled by a signal", async (t) => {
  const worker = await started(t);
  await assert.rejects(worker.call("nap", 60, { signal: AbortSignal.timeout(100) }), { name: "CallCancelled" });
  assert.equal(await worker.call("double", 2), 4);
});

test("progress and output are told", async (t) => {
  const seen = [];
  let said = () => {};
  const text = new Promise((resolve) => (said = resolve));
  const onProgress = (callID, done, total, message) => seen.push([done, total, message]);
  const worker = await started(t, { onProgress, onOutput: (stream, piece) => said([stream, piece]) }, "--output-frames");
  await worker.call("steps", 500);
  assert.deepEqual(seen.at(-1), [500, 500, "step"]);
  await worker.call("say", "hello");
  assert.deepEqual(await text, ["stdout", "hello\n"]);
});

test("the end of the worker rejects what waits and what comes", async (t) => {
  const worker = await started(t);
  const nap = worker.call("nap", 60);
  worker.call("leave").catch(() => {});
  await assert.rejects(nap, /ended: 7/);
  await assert.rejects(worker.call("double", 1), /ended: 7/);
  await assert.rejects(new Worker(["/no/such/program"]).ready, { code: "ENOENT" });
  await assert.rejects(new Worker([...command, "--bogus"]).ready, /ended: 2/);
});

test("close ends a worker in the middle of calls", async (t) => {
  const worker = await started(t);
  const nap = worker.call("nap", 60);
  const began = Date.now();
  const rejected = assert.rejects(nap, /ended/);
  await worker.close();
  await rejected;
  assert.ok(Date.now() - began < 2000);
});
