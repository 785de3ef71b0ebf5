// A client for a venvoy worker: calls Python functions from Node.js, over the JSON frames of docs/protocol.md.
// Copy this file; it needs no packages.

import { spawn } from "node:child_process";

/** An error that a Python function raised; `name` is its class, `traceback` the Python traceback. */
export class PythonError extends Error {
  constructor({ errorType, errorMessage, traceback }) {
    super(errorMessage);
    this.name = errorType;
    this.traceback = traceback ?? "";
  }
}

export class Worker {
  #process;
  #pending = new Map(); // by callID or opID: what to do with the answer
  #pings = [];
  #count = 0;
  #unread = [];
  #failure = null;
  #ready;
  #exited;

  /**
   * Start a worker, for example `new Worker(["venvoy", "worker", "--with", "numpy", "--stdio-json"])`.
   * @param command the program and its arguments.
   * @param options `onProgress(callID, done, total, message)`, `onLog(record)`, `onOutput(stream, text)`, and those of `spawn`.
   */
  constructor(command, { onProgress, onLog, onOutput, ...options } = {}) {
    this.handlers = {
      progress: (frame) => onProgress?.(frame.callID, frame.done, frame.total, frame.message),
      log: (frame) => onLog?.(frame),
      output: (frame) => onOutput?.(frame.stream, frame.text),
    };
    this.#ready = new Promise((resolve, reject) => this.#pending.set("ready", { resolve, reject }));
    this.#ready.catch(() => {}); // whoever awaits it is told; nobody has to
    this.#process = spawn(command[0], command.slice(1), { stdio: ["pipe", "pipe", "inherit"], ...options });
    this.#process.stdout.on("data", (piece) => this.#receive(piece));
    this.#process.stdin.on("error", () => {}); // the exit says why
    this.#exited = new Promise((resolve) => {
      this.#process.on("error", (error) => resolve(this.#end(error)));
      this.#process.on("close", (code, signal) => resolve(this.#end(new Error(`the worker ended: ${signal ?? code}`))));
    });
  }

  /** Resolves to what the worker says of itself: `pythonVersion`, `pid`, `maxWorkers`. */
  get ready() {
    return this.#ready;
  }

  /** Run Python code, whose functions can be called afterwards. */
  async define(code, filename) {
    await this.#ask({ type: "define", opID: `op-${++this.#count}`, code, filename }, "opID");
  }

  /** Call a function with one argument, any JSON value; an aborted `signal` cancels the call. */
  async call(func, args = null, { signal } = {}) {
    const callID = `call-${++this.#count}`;
    const cancel = () => this.#send({ type: "cancel", callID });
    const answer = this.#ask({ type: "call", callID, func, args }, "callID");
    if (signal?.aborted) cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      return (await answer).result;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Resolves when the worker answers. */
  ping() {
    return new Promise((resolve, reject) => {
      this.#failure ? reject(this.#failure) : this.#pings.push({ resolve, reject });
      this.#send({ type: "ping" });
    });
  }

  /** End the worker at once; what is pending is rejected. */
  async close() {
    this.#process.stdin.destroy();
    await this.#exited;
  }

  #ask(message, idName) {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#pending.set(message[idName], { resolve, reject });
      this.#send(message);
    });
  }

  #send(message) {
    const body = Buffer.from(JSON.stringify(message));
    const head = Buffer.alloc(4);
    head.writeUInt32BE(body.length);
    this.#process.stdin.write(Buffer.concat([head, body]));
  }

  #receive(piece) {
    this.#unread.push(piece);
    let size = this.#unread.reduce((sum, part) => sum + part.length, 0);
    if (this.#unread[0].length < 4 && size >= 4) this.#unread = [Buffer.concat(this.#unread)];
    while (size >= 4 && size >= 4 + this.#unread[0].readUInt32BE(0)) {
      const data = Buffer.concat(this.#unread);
      const end = 4 + data.readUInt32BE(0);
      this.#unread = [data.subarray(end)];
      size -= end;
      this.#handle(JSON.parse(data.toString("utf8", 4, end)));
    }
  }

  #handle(frame) {
    if (frame.type === "pong") return this.#pings.shift()?.resolve();
    if (frame.type in this.handlers) return this.handlers[frame.type](frame);
    const id = frame.type === "ready" || !this.#pending.has("ready") ? frame.callID ?? frame.opID ?? "ready" : "ready";
    const waiting = this.#pending.get(id);
    this.#pending.delete(id);
    if (frame.ok === false || frame.type === "error") waiting?.reject(new PythonError(frame));
    else waiting?.resolve(frame);
  }

  #end(error) {
    this.#failure = error;
    for (const waiting of [...this.#pending.values(), ...this.#pings]) waiting.reject(error);
    this.#pending.clear();
    this.#pings = [];
  }
}
