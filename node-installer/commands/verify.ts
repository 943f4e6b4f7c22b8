import { dialSecondsOf } from "../../runtime/guest-start.ts";
import { mismatches } from "../containerd/serving.ts";
import { readJournal } from "../host/journal.ts";
import { sentence } from "../install/log.ts";
import { entryOf, observeHost } from "../install/observe.ts";
import { inspectPayload } from "../install/payload.ts";
import { changesOf, makePlan } from "../install/plan.ts";
import { type Options, openEnvironment } from "./context.ts";
import { exitCodes } from "./exit-codes.ts";

/**
 * Checks that files and configuration match the spec, that the running daemon serves every handler with our options, and
 * that a sandbox started through the CRI runs our shim. `--deep` reads every payload byte again. Changes nothing else.
 */
export async function verify(options: Options): Promise<number> {
  const { environment, spec, host } = await openEnvironment({ ...options, print: () => undefined });
  const { daemon } = environment;
  const problems: string[] = [];
  const started: string[] = [];
  const journal = await readJournal(host, spec);
  if (journal.transaction !== undefined) {
    problems.push(
      `a change of ${journal.file?.path ?? "containerd's file"} that began at ${journal.transaction.startedAt} is not finished`,
    );
  }
  const observation = await observeHost(environment, journal, { criTimeoutMs: 5_000 });
  const plan = await makePlan(host, spec, observation);
  problems.push(...plan.untrusted);
  for (const { path, action } of await changesOf(host, plan, observation)) {
    problems.push(`${path} does not match the spec: installing would ${action} it`);
  }
  if (options.deep) {
    for (const runtime of spec.runtimes) problems.push(...(await inspectPayload(host, runtime)));
  }
  const { serving, notServing, located } = observation;
  if (serving === undefined) problems.push(`containerd's CRI (${located.socket}) does not answer: ${notServing}`);
  if (serving === undefined) problems.push(...[await daemon.whyDown(located)].filter((why) => why !== undefined));
  else {
    const notServed = mismatches(serving, plan);
    problems.push(...notServed);
    for (const runtime of notServed.length > 0 ? [] : spec.runtimes) {
      const dialSeconds = dialSecondsOf(runtime.kataConfig.content);
      await daemon.verifySandbox(located, entryOf(runtime), dialSeconds).then(
        ({ seconds }) => started.push(`A sandbox of ${runtime.handler} started in ${seconds} s.\n`),
        (error: unknown) => problems.push(sentence(error)),
      );
    }
  }
  const handlers = spec.runtimes.map(({ handler }) => handler);
  if (options.json) options.print(`${JSON.stringify({ ok: problems.length === 0, handlers, problems }, null, 2)}\n`);
  else if (problems.length === 0)
    options.print(
      `This node matches the spec and serves ${handlers.join(", ") || "no handler, as specified"}.\n${started.join("")}`,
    );
  else options.print(problems.map((problem) => `${problem}\n`).join(""));
  return problems.length === 0 ? 0 : exitCodes.notAsExpected;
}
