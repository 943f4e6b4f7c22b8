import { readdir } from "node:fs/promises";
import { previewOfRendered, type Rendering } from "../../review/preview/rendered.ts";
import { plannedNodes, plannedSpecs } from "../../review/summary/groups.ts";
import { renderMarkdown } from "../../review/summary/markdown.ts";
import { summarize } from "../../review/summary/summary.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";
import { unannotated } from "../render/annotations.ts";
import { readComponents, readDirectory } from "../render/directory.ts";
import { planFleets } from "./fleet.ts";

interface Directories {
  before: string;
  after: string;
  bundles?: string | undefined;
}

/** Prints what becomes of a cluster in which the manifests of one rendering were applied, and now those of another are. */
export async function rendered({ before, after, bundles }: Directories): Promise<void> {
  const [old, now] = [await renderingIn(before), await renderingIn(after)];
  if (old === undefined && now === undefined)
    throw new Refusal("no-rendering", `${before} and ${after} are both empty: there is nothing to compare.`);
  if ((now ?? old)?.components === undefined)
    throw new Refusal(
      "old-rendering",
      `${now ? after : before} was rendered by an earlier version, which did not write what a summary is made of: render it again with this version.`,
    );
  const [from, to] = [old?.components?.stack, now?.components?.stack];
  if (from !== undefined && to !== undefined && from !== to)
    throw new Refusal(
      "other-stack",
      `${before} is of stack ${from} and ${after} of stack ${to}: give two renderings of one stack. If it has another name now, give an empty directory as --before; everything counts as new then.`,
    );
  const preview = previewOfRendered(old, now);
  const fleets = bundles === undefined ? [] : await planFleets(plannedSpecs(preview), bundles, plannedNodes(preview));
  process.stdout.write(renderMarkdown(summarize(preview, fleets)));
}

/** Undefined for an empty directory: nothing is rendered there. */
async function renderingIn(directory: string): Promise<Rendering | undefined> {
  const files = await readdir(directory).catch((error: unknown) => {
    throw new Refusal(
      "no-directory",
      `${cannotBeRead(directory, error)}. Where nothing was rendered, give an empty directory.`,
    );
  });
  if (files.length === 0) return undefined;
  const expected = "expected a kustomization.yaml as contrast-runtime render writes it";
  const { objects, foreign } = await readDirectory(
    directory,
    (list) => `${list} is not what it should be: ${expected}.`,
  );
  if (objects.size === 0)
    throw new Refusal("not-rendered", `${directory} is not empty, and has no manifests: ${expected}.`);
  // It would change objects, and nothing here would say so.
  if (foreign.length > 0)
    throw new Refusal(
      "foreign-kustomization",
      `${directory}/kustomization.yaml has ${foreign.join(", ")}: ${expected}. Put it into an overlay, a kustomization of its own that lists ${directory}.`,
    );
  return {
    objects: new Map([...objects].map(([file, object]) => [file, unannotated(object)])),
    components: await readComponents(directory),
  };
}
