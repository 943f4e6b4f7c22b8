import type { Source } from "../approval/form.ts";
import { code, list } from "../text.ts";
import type { Forge } from "./forge.ts";
import { github } from "./github.ts";
import { gitlab } from "./gitlab.ts";
import { named, type RequestsOf, refused } from "./request.ts";

const requests: Record<Forge["kind"], RequestsOf> = { github, gitlab };

/** What a forge says of the request that a commit merged. */
export interface Approval {
  request: number;
  /** Its last commit, which is what was reviewed. */
  head: string;
  /** Who approved that commit after its preview was stored. */
  by: string[];
  /** The canonical form that its preview stored. */
  form: string;
}

/**
 * The approval of the request that merged a commit into a branch. It counts if it is of the request's last commit, by
 * somebody who may write, did not write any of it as far as the forge names the authors, and said so after the preview was
 * stored.
 *
 * @param stored where previews keep the form of this stack: on GitHub an artifact's name, on GitLab a path among a job's artifacts
 * @throws Refusal that says what is missing
 */
export async function approvalOf(
  forge: Forge,
  merged: { commit: string; branch: string },
  stored: string,
): Promise<Approval> {
  const { mergedBy, previewOf, voicesOn, mayWrite } = requests[forge.kind];
  const request = await mergedBy(forge, merged);
  const preview = await previewOf(forge, request, stored);
  const voices = await voicesOn(forge, request);
  const others = voices.filter(({ name }) => !request.writers.includes(name));
  const objection = others.find(({ approves }) => !approves);
  if (objection) throw refused(`${code(objection.name)} asks for changes of ${named(forge, request)}.`);
  const early = others.filter(({ at }) => at <= preview.at);
  const late = others.filter(({ at }) => at > preview.at);
  const by: string[] = [];
  for (const { name, id } of late) if (await mayWrite(forge, { name, id })) by.push(name);
  if (by.length > 0) return { request: request.number, head: request.head, by, form: preview.form };
  const why =
    early.length > 0
      ? `${list(early.map(({ name }) => code(name)))} approved before its preview of ${preview.at.toISOString()} was stored`
      : late.length > 0
        ? `${list(late.map(({ name }) => code(name)))} may not write here`
        : "nobody but its authors approved its last commit";
  throw refused(`${named(forge, request)} is not approved at ${request.head}: ${why}.`);
}

/**
 * Who released a job that waits for an environment, other than the request's authors. An environment that nobody protected
 * releases by itself: that is refused. So is a second update by one plan: the first one changed what the plan was made of,
 * and what the reviewers were shown.
 *
 * @param planned what the plan was made of, and by which job
 */
export async function releaseOf(
  forge: Forge,
  planned: Source & { request: number },
  environment: string,
): Promise<string[]> {
  const { refuseUsedPlan, writersOf, releasersOf } = requests[forge.kind];
  await refuseUsedPlan(forge, planned);
  const writers = await writersOf(forge, planned.request);
  const by = (await releasersOf(forge, environment)).filter((name) => !writers.includes(name));
  if (by.length > 0) return by;
  throw refused(
    `Nobody but its authors released this job for the environment ${code(environment)}: give the environment required reviewers, and let one of them who did not write the change look at the plan.`,
  );
}
