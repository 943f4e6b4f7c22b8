import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { askAll, type Forge, forgeOf, pullRequestOf, tell } from "./forge.ts";

/** Where the one comment of a pull or merge request is made or changed. */
interface Comments {
  forge: Forge;
  /** Lists them, and makes one. */
  all: string;
  update: (id: number) => { method: string; path: string };
  /** Whether its author is one as this token's. A person who writes the marker could change afterwards what it says. */
  isOurs: (comment: Comment) => boolean;
}

const commentSchema = z.object({
  id: z.number(),
  body: z.string().nullish(),
  /** GitHub's. */
  user: z.object({ type: z.string() }).nullish(),
  /** GitLab's. */
  author: z.object({ username: z.string() }).nullish(),
});

type Comment = z.infer<typeof commentSchema>;

/**
 * Those of the request that a job runs for. Throws a Refusal that names a missing variable. GitHub's GITHUB_TOKEN needs
 * `pull-requests: write`; GitLab's GITLAB_TOKEN is a project access token with `api`.
 */
export function commentsOf(env: NodeJS.ProcessEnv): Comments {
  const forge = forgeOf(env);
  if (forge.kind === "github") {
    const request = pullRequestOf(forge.need("GITHUB_EVENT_PATH"));
    if (request === undefined) {
      throw new Refusal(
        "no-forge",
        "This workflow was not started by a pull request, so there is nothing to comment on.",
      );
    }
    return {
      forge,
      all: `${forge.project}/issues/${request.number}/comments`,
      update: (id) => ({ method: "PATCH", path: `${forge.project}/issues/comments/${id}` }),
      isOurs: ({ user }) => user?.type === "Bot",
    };
  }
  const all = `${forge.project}/merge_requests/${forge.need("CI_MERGE_REQUEST_IID")}/notes`;
  return {
    forge,
    all,
    update: (id) => ({ method: "PUT", path: `${all}/${id}` }),
    isOurs: ({ author }) => /^(project|group)_\d+_bot/.test(author?.username ?? ""),
  };
}

/**
 * Writes the comment, over the token's own of an earlier run, which its first line, the marker, tells from others. Throws a Refusal
 * for a text without one, as a summary that could not be made leaves behind: it would be written over anybody's comment.
 */
export async function postComment(place: Comments, body: string): Promise<"created" | "updated"> {
  const [marker] = /^<!-- .+ -->(?=\n|$)/.exec(body) ?? [];
  if (marker === undefined) {
    throw new Refusal(
      "no-summary",
      'The text does not begin as what "contrast-runtime review summary" or "review rendered" prints: no comment is written.',
    );
  }
  const { forge, all, update, isOurs } = place;
  const comments = await askAll(forge, all, commentSchema);
  const found = comments.find((each) => each.body?.startsWith(marker) && isOurs(each));
  const { method, path } = found === undefined ? { method: "POST", path: all } : update(found.id);
  await tell(forge, method, path, { body });
  return found === undefined ? "created" : "updated";
}
