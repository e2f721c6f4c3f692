//! What the gateway knows of AI services, without a socket: requests and answers of one provider's dialect become
//! those of another's, tokens are counted, personal data is found.
