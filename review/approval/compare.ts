import type { Operation } from "../summary/operations.ts";
import type { Summary } from "../summary/summary.ts";
import { code } from "../text.ts";
import type { Approved, Source } from "./form.ts";

/**
 * A sentence for each reason why an update plan is not the one whose form was stored and shown: another commit's, another
 * run's, or another file. Empty: go on. Pure.
 *
 * @param plan SHA-256 of the file
 * @param job the job that would run it
 */
export function planDifferences({ source, errors }: Approved, plan: string, job: Source | undefined): string[] {
  if (errors.length > 0) return ["The preview that saved the plan had failed: it approves nothing."];
  if (source?.plan === undefined) return ["The stored form names no plan: give the one that was made with --plan."];
  if (job === undefined) return ["This is no job of GitHub or GitLab, so nothing says which commit it is for."];
  const is = (what: string, planned: string, now: string) =>
    planned === now ? [] : [`The plan is of ${what} ${code(planned)}, not of ${code(now)}.`];
  return [
    ...is("commit", source.commit, job.commit),
    ...is("run", source.run, job.run),
    ...is("SHA-256", source.plan, plan),
  ];
}

/** A sentence for each difference between what was approved and what would happen now; empty: go on. Pure. */
export function differences(approved: Approved, fresh: Pick<Summary, keyof Approved & keyof Summary>): string[] {
  if (fresh.errors.length > 0) return fresh.errors.map((error) => `The preview fails now: ${error}`);
  if (approved.errors.length > 0) return ["The approved preview had failed: it approves nothing."];
  const names = [`${approved.project}/${approved.stack}`, `${fresh.project}/${fresh.stack}`] as const;
  if (names[0] !== names[1] && approved.stack !== "" && fresh.stack !== "") {
    return [`The approval is for stack ${code(names[0])}, not for ${code(names[1])}.`];
  }
  return [...operationDifferences(approved.operations, fresh.operations), ...lineDifferences(approved, fresh)];
}

type Comparable = Approved["operations"][number] | Operation;

function operationDifferences(approved: Comparable[], fresh: Comparable[]): string[] {
  const thing = ({ type, name }: Comparable) => `${code(type.split(":").at(-1))} ${code(name)}`;
  const [before, now] = [approved, fresh].map(numbered);
  return [...new Set([...(before?.keys() ?? []), ...(now?.keys() ?? [])])].sort().flatMap((id) => {
    const [old, current] = [before?.get(id), now?.get(id)];
    if (old === undefined && current) return [`Not approved: ${current.op} of ${thing(current)}.`];
    if (old && current === undefined) return [`Approved, but no longer planned: ${old.op} of ${thing(old)}.`];
    if (!old || !current) return [];
    if (old.op !== current.op) return [`${thing(current)}: approved as ${old.op}, now planned as ${current.op}.`];
    const places = placeDifferences(old, current).map((difference) => `${thing(current)} ${difference}`);
    if (places.length > 0) return places;
    if (old.inputs !== current.inputs) return [`${thing(current)} now gets inputs that differ from the approved ones.`];
    const paths = [old.changed, current.changed].map(
      (all) => all.map(code).join(", ") || "nothing that the engine names",
    );
    return paths[0] === paths[1]
      ? []
      : [`${thing(current)}: approved with a change of ${paths[0]}; now it changes ${paths[1]}.`];
  });
}

/** Whose child it is, and by which provider it is made: in the cluster, or the account, that this leads to. */
function placeDifferences(old: Comparable, current: Comparable): string[] {
  const short = (urn: string | undefined) => urn?.replace(/^urn:pulumi:[^:]*::[^:]*::/, "") ?? "nothing";
  const moved = (what: string, from: string | undefined, to: string | undefined) =>
    from === to ? [] : [`is ${what} ${code(short(to))}, approved as ${what} ${code(short(from))}.`];
  // A preview without --refresh does not show the settings of a provider that stays the same.
  const areKnown = old.providerInputs !== undefined && current.providerInputs !== undefined;
  const isMoved = old.parent !== current.parent || old.provider !== current.provider;
  return [
    ...moved("below", old.parent, current.parent),
    ...moved("made by", old.provider, current.provider),
    ...(!isMoved && old.urn !== current.urn
      ? [`has another URN: ${code(short(current.urn))}, approved as ${code(short(old.urn))}.`]
      : []),
    ...(!isMoved && areKnown && old.providerInputs !== current.providerInputs
      ? [`is made by ${code(short(current.provider))}, whose settings differ from those of the approved preview.`]
      : []),
  ];
}

/** Two may have one name: below two parents, or one of them left behind by an update that failed. */
function numbered(operations: Comparable[]): Map<string, Comparable> {
  const times = new Map<string, number>();
  return new Map(
    operations.map((operation) => {
      const key = `${operation.type} ${operation.name}`;
      const time = (times.get(key) ?? 0) + 1;
      times.set(key, time);
      return [`${key} ${time}`, operation];
    }),
  );
}

type Sections = Pick<Approved, "sections">;

function lineDifferences(approved: Sections, fresh: Sections): string[] {
  const lines = ({ sections }: Sections) =>
    sections.flatMap((section) =>
      section.lines.map(
        ({ certainty, text, block }) =>
          `${section.title}: ${text} (${certainty})${block === undefined ? "" : `\n${block}`}`,
      ),
    );
  const [before, now] = [lines(approved), lines(fresh)];
  return [
    ...now.filter((line) => !before.includes(line)).map((line) => `Now says, under ${line}`),
    ...before.filter((line) => !now.includes(line)).map((line) => `No longer says, under ${line}`),
  ];
}
