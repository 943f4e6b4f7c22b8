import { posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";

/** The target of the link at a path whose parents contain no links; undefined if it is not a link. */
export type ReadLink = (path: string) => string | undefined;

/** Linux's own limit. */
const maximumLinks = 40;

/**
 * The node's path with every link resolved as the node itself would: an absolute link starts again at the host root,
 * and `..` never climbs above it, so no link leads out of the host root. Parts that do not exist stay as they are. With
 * `followLast: false` the last segment may be a link and is kept.
 */
export function resolvePath(path: string, readLink: ReadLink, followLast = true): string {
  if (!path.startsWith("/") || path.includes("\0")) throw new Error(`not an absolute path of the node: ${path}`);
  let rest = segmentsOf(path);
  let resolved = "/";
  let links = 0;
  for (let segment = rest.shift(); segment !== undefined; segment = rest.shift()) {
    if (segment === "..") {
      resolved = posix.dirname(resolved);
      continue;
    }
    const next = `${resolved === "/" ? "" : resolved}/${segment}`;
    const target = rest.length === 0 && !followLast ? undefined : readLink(next);
    if (target === undefined) {
      resolved = next;
      continue;
    }
    links += 1;
    if (links > maximumLinks) {
      throw new Refusal(
        "too-many-links",
        `There are too many symbolic links in ${path}: most likely one of them leads back to itself. Correct it first.`,
      );
    }
    if (target.startsWith("/")) resolved = "/";
    rest = [...segmentsOf(target), ...rest];
  }
  return resolved;
}

const segmentsOf = (path: string): string[] => path.split("/").filter((segment) => segment !== "" && segment !== ".");
