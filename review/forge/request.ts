import { canonicalJson } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { Approved, Source } from "../approval/form.ts";
import { count } from "../text.ts";
import type { Forge } from "./forge.ts";

export const refused = (sentence: string): Refusal => new Refusal("not-approved", sentence);

export const usedPlan = (why: string, again: string): Refusal =>
  refused(
    `${why}, and a plan is for one update: what that one changed is not what the plan was made of. ${again}, so that there is a new plan. If that differs from what was approved, because a part of it is done, make a pull request for the rest.`,
  );

/** What a forge is asked about a request, and how. */
export interface RequestsOf {
  /** The request that merged a commit into a branch. */
  mergedBy(forge: Forge, merged: { commit: string; branch: string }): Promise<Request>;
  /** The form that its preview stored. */
  previewOf(forge: Forge, request: Request, stored: string): Promise<StoredForm>;
  voicesOn(forge: Forge, request: Request): Promise<Voice[]>;
  mayWrite(forge: Forge, person: { name: string; id: number }): Promise<boolean>;
  /** Authors, as far as the forge names them. */
  writersOf(forge: Forge, number: number): Promise<string[]>;
  /** Throws a Refusal where an update by the plan began before. */
  refuseUsedPlan(forge: Forge, planned: Source): Promise<void>;
  /** Who let this job go on. */
  releasersOf(forge: Forge, environment: string): Promise<string[]>;
}

export interface Request {
  number: number;
  head: string;
  writers: string[];
}

export interface Voice {
  name: string;
  id: number;
  at: Date;
  approves: boolean;
}

export interface StoredForm {
  form: string;
  at: Date;
}

export const named = ({ kind }: Forge, { number }: Request) =>
  kind === "github" ? `Pull request #${number}` : `Merge request !${number}`;

export function only<T>(found: T[], { commit, branch }: { commit: string; branch: string }): T {
  const [first, second] = found;
  if (first === undefined)
    throw refused(`${commit} was merged into ${branch} by no request: nobody approved what it does.`);
  if (second !== undefined) throw refused(`${commit} was merged into ${branch} by ${found.length} requests at once.`);
  return first;
}

/** The newest form, which all previews of one commit must agree on: one that differs may be anybody's. */
export function agreed(forge: Forge, request: Request, forms: (StoredForm & { approved: Approved })[]): StoredForm {
  const [newest, ...older] = forms.toSorted((a, b) => b.at.getTime() - a.at.getTime());
  if (newest === undefined) {
    throw refused(
      `No preview of ${named(forge, request)} at ${request.head} succeeded and is still stored, so there is nothing to compare with.`,
    );
  }
  const said = ({ approved }: { approved: Approved }) => canonicalJson({ ...approved, source: undefined });
  if (older.some((each) => said(each) !== said(newest))) {
    throw refused(
      `${count(forms.length, "preview")} of ${request.head} say different things for ${named(forge, request)}.`,
    );
  }
  return newest;
}
