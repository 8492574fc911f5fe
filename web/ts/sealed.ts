// What the service worker says to a worker or a frame that it refuses.

/** The header of a refusal: the network is not to blame. */
export const SEALED = 'globe-sealed';
