// It runs when it is imported, and exports nothing.
export {};
