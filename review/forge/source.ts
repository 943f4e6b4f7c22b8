import type { Source } from "../approval/form.ts";
import { pullRequestOf } from "./forge.ts";

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
