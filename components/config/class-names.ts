import { platformOf } from "../../runtime/handler.ts";
import { platforms } from "../../runtime/platforms.ts";

/** A handler, the further names of its RuntimeClass, and those that are resolved to it when a pod is admitted. */
export interface NamedHandler {
  handler: string;
  classNames: readonly string[];
  currentFor: readonly string[];
}

/** The two lists of names. */
export const nameLists = ["classNames", "currentFor"] as const;
export type NameList = (typeof nameLists)[number];

/**
 * Names that cannot be: each with the handler's place in the list, the list of names and its own place there, and words that
 * go on after it. A name leads to one handler in one way, and the class of each handler's own name is there already.
 */
export function mistakesOfClassNames(
  handlers: readonly NamedHandler[],
): { index: number; list: NameList; place: number; message: string }[] {
  const own = new Set(handlers.map(({ handler }) => handler));
  const owners = new Map<string, Owner>();
  return nameLists.flatMap((list) =>
    handlers.flatMap((named, index) =>
      named[list].flatMap((name, place) => {
        const isTwice = named[list].indexOf(name) < place;
        const { handler } = named;
        const message = problemOf(name, { handler, list }, { own, owner: owners.get(name), isTwice });
        if (!owners.has(name)) owners.set(name, { handler, list });
        return message === undefined ? [] : [{ index, list, place, message }];
      }),
    ),
  );
}

interface Owner {
  handler: string;
  list: NameList;
}

function problemOf(
  name: string,
  { handler, list }: Owner,
  { own, owner, isTwice }: { own: ReadonlySet<string>; owner: Owner | undefined; isTwice: boolean },
): string | undefined {
  if (isTwice) return "is listed twice";
  if (name === handler) return "is the handler's own name, whose RuntimeClass is there in any case";
  if (own.has(name)) return "is the name of another handler of this stack, which has its own RuntimeClass";
  if (owner !== undefined && owner.list !== list)
    return `is among the classNames of ${owner.handler} already: a name is a class of its own or resolved when pods are admitted. Keep it in one of the two lists`;
  if (owner !== undefined && owner.handler !== handler) {
    const [is, rule] = {
      classNames: [`a RuntimeClass of ${owner.handler}`, "a class leads to one handler. To move it there"],
      currentFor: [`resolved to ${owner.handler}`, "one runtime is current for a name. To switch"],
    }[list];
    return `is ${is} already: ${rule} is one update: take it from that runtime and give it to this one`;
  }
  if (isInsecure(handler) && name.startsWith("contrast-cc"))
    return `promises confidential pods, which ${handler} does not make`;
  return undefined;
}

const isInsecure = (handler: string): boolean => {
  const platform = platformOf(handler);
  return platform === undefined || platforms[platform].insecure || handler.startsWith("contrast-insecure-");
};
