// Streams codes through graphs as a JSON on standard input says, and writes what came out. Run by tests/course/test_page_client.py.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const job = JSON.parse(readFileSync(0, "utf8"));
const ort = await import(pathToFileURL(job.runtime));
const { CodecSession, CodecError } = await import(pathToFileURL(job.client));
ort.env.wasm.numThreads = 1;

const plain = (tensor) => ({ dims: [...tensor.dims], data: Array.from(tensor.data, Number) });
const load = async ({ graph, about }) => CodecSession.load(ort, readFileSync(graph), JSON.parse(readFileSync(about, "utf8")));

async function streamed(session, codes, schedule) {
  const stream = session.stream();
  const samples = [];
  const states = [];
  for (let start = 0, call = 0; start < codes.length; call++) {
    const length = schedule[call % schedule.length];
    samples.push(...(await stream.push(codes.slice(start, start + length))));
    states.push(Object.fromEntries(Object.entries(stream.state).map(([name, tensor]) => [name, plain(tensor)])));
    start += length;
  }
  samples.push(...(await stream.finish()));
  return { samples, states: job.states ? states : [], frames: stream.frames };
}

async function told(action) {
  try {
    await action();
    return "no error";
  } catch (error) {
    return error instanceof CodecError ? error.message : `${error}`;
  }
}

const results = [];
for (const { graph, about, schedules } of job.graphs) {
  const session = await load({ graph, about });
  for (const schedule of schedules) results.push(await streamed(session, job.codes, schedule));
}

const session = await load(job.graphs[0]);
const wrongState = async (change) => {
  const stream = session.stream();
  change(stream.state);
  return told(() => stream.push(job.codes.slice(0, 2)));
};
const name = Object.keys(session.zeroState())[1];
const other = JSON.parse(readFileSync(job.graphs[1].about, "utf8"));
const errors = {
  missing: await wrongState((state) => delete state[name]),
  dtype: await wrongState((state) => (state[name] = new ort.Tensor("int64", new BigInt64Array(1), [1]))),
  shape: await wrongState((state) => (state[name] = new ort.Tensor("float32", new Float32Array(2), [1, 1, 2]))),
  code: await told(() => session.stream().push([job.codes[0].map((code, q) => (q === 3 ? 999 : code))])),
  half: await told(() => session.stream().push([job.codes[0].map((code, q) => (q === 3 ? 0.5 : code))])),
  short: await told(() => session.stream().push([job.codes[0].slice(1)])),
  none: await told(() => session.stream().push([])),
  description: await told(() => new CodecSession(ort, session.inference, other)),
  finished: await told(async () => {
    const stream = session.stream();
    await stream.push(job.codes.slice(0, 1), true);
    await stream.push(job.codes.slice(0, 1));
  }),
};

const first = session.stream();
await first.push(job.codes.slice(0, 5));
const fork = first.fork();
const there = await fork.push(job.codes.slice(9, 12));
const here = await first.push(job.codes.slice(5, 8));
const again = await first.fork().push(job.codes.slice(8, 9));
await first.reset();
const anew = await first.push(job.codes.slice(0, 5));
const forks = { there: [...there], here: [...here], again: [...again], anew: [...anew] };

// Calls that nobody awaits before the next one: a stream's sound must not depend on it.
const part = (from, to) => job.codes.slice(from, to);
const flat = (pieces) => pieces.flatMap((piece) => [...piece]);
async function unawaited({ graph, about }) {
  const session = await load({ graph, about });
  const whole = session.stream();
  const calls = [];
  const buffer = part(0, 1).map((frame) => [...frame]);
  for (let n = 0; n < job.codes.length; n++) {
    buffer[0].splice(0, Infinity, ...job.codes[n]); // one array, filled anew for each call
    calls.push(whole.push(buffer));
  }
  calls.push(whole.finish());
  const waiting = whole.waiting;
  const together = flat(await Promise.all(calls));

  const anew = session.stream();
  const [, , second, end] = await Promise.all([anew.push(part(0, 5)), anew.reset(), anew.push(part(0, 5)), anew.finish()]);

  const sick = session.stream(); // one call's codes do not fit, one call of the graph fails
  const { inference } = session;
  session.inference = { run: (feeds) => (feeds.audio_codes.dims[1] === 3 ? Promise.reject(new Error("out of memory")) : inference.run(feeds)) };
  const settled = await Promise.allSettled([sick.push(part(0, 5)), sick.push([[0]]), sick.push(part(0, 3)), sick.push(part(5, 9)), sick.finish()]);
  session.inference = inference;

  const trunk = session.stream();
  const begun = trunk.push(part(0, 5));
  const branch = trunk.fork().fork();
  const branches = await Promise.all([trunk.push(part(5, 8), true), branch.push(part(9, 12), true), begun]);
  // Streams that share the session, all at once.
  const crowd = await Promise.all([...Array(6)].map(() => session.stream().push(part(0, 5), true)));
  return {
    crowd: crowd.map((piece) => [...piece]),
    waiting: [waiting, whole.waiting, branch.waiting],
    together,
    anew: flat([second, end]),
    sick: flat(settled.map(({ value }) => value ?? [])),
    errors: settled.map(({ reason }) => reason?.message ?? null),
    frames: [whole.frames, sick.frames, branch.frames],
    twice: [(await whole.finish()).length, (await branch.finish()).length, await told(() => whole.push(part(0, 1)))],
    branches: branches.map((piece) => [...piece]),
  };
}
const turns = [];
for (const graph of job.graphs.slice(0, 3)) turns.push(await unawaited(graph));

const unheard = new Promise((resolve) => process.once("unhandledRejection", (error) => resolve(error.message)));
session.stream().push([[0]]);
process.stdout.write(JSON.stringify({ results, errors, forks, name, turns, unheard: await unheard }));
