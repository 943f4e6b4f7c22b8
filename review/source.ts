import { z } from "zod";
import { pullRequestOf } from "./forge.ts";

/** What a preview was made of, and by which run of a job: the canonical form carries it. */
export const sourceSchema = z.object({
  /** Number of the pull or merge request. */
  request: z.number().optional(),
  /** The commit whose program ran; of a request its last one, not the merge that a forge makes for a trial. */
  commit: z.string(),
  /** GitHub's run, GitLab's pipeline. */
  run: z.string(),
  /** GitHub's attempt at the run, GitLab's job: both are higher when somebody runs it again. */
  attempt: z.string(),
  /** SHA-256 of the update plan that the same preview saved. */
  plan: z.string().optional(),
});
export type Source = z.infer<typeof sourceSchema>;

/** From the variables of a job; undefined outside of one. */
export function sourceOf(env: NodeJS.ProcessEnv): Source | undefined {
  const { GITHUB_SHA, GITHUB_RUN_ID, GITHUB_RUN_ATTEMPT, GITHUB_EVENT_PATH } = env;
  if (env.GITHUB_ACTIONS && GITHUB_SHA && GITHUB_RUN_ID && GITHUB_RUN_ATTEMPT) {
    const request = GITHUB_EVENT_PATH ? pullRequestOf(GITHUB_EVENT_PATH) : undefined;
    return {
      ...(request && { request: request.number }),
      commit: request?.head ?? GITHUB_SHA,
      run: GITHUB_RUN_ID,
      attempt: GITHUB_RUN_ATTEMPT,
    };
  }
  const { CI_COMMIT_SHA, CI_MERGE_REQUEST_IID, CI_MERGE_REQUEST_SOURCE_BRANCH_SHA, CI_PIPELINE_ID, CI_JOB_ID } = env;
  if (env.GITLAB_CI && CI_COMMIT_SHA && CI_PIPELINE_ID && CI_JOB_ID) {
    return {
      ...(CI_MERGE_REQUEST_IID && { request: Number(CI_MERGE_REQUEST_IID) }),
      // Set only where the pipeline runs on a trial merge.
      commit: CI_MERGE_REQUEST_SOURCE_BRANCH_SHA || CI_COMMIT_SHA,
      run: CI_PIPELINE_ID,
      attempt: CI_JOB_ID,
    };
  }
  return undefined;
}
