import { BlockList, isIP, isIPv6 } from "node:net";

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8);
loopback.addAddress("::1", "ipv6");

/** Whether what is sent there stays on this machine. `localhost` counts: RFC 6761 has every resolver answer a loopback address. */
export function isLoopback({ hostname }: URL): boolean {
  const address = hostname.replace(/^\[|\]$/g, "");
  return address === "localhost" || (isIP(address) > 0 && loopback.check(address, isIPv6(address) ? "ipv6" : "ipv4"));
}

/** Whether nobody on the way can read what is sent there. */
export const isPrivate = (url: URL): boolean => url.protocol === "https:" || isLoopback(url);
