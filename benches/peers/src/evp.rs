//! AWS-LC and OpenSSL, by the interface that both have.
//!
//! They are used as a program uses them that has its key ready: a context is initialised with the
//! key once, and for every sector only the initialisation vector is set. AWS-LC's symbols are
//! prefixed by its crate, so both can be in one program.

/// A module for a library, and the ciphers it has by the length of the key.
macro_rules! evp_library {
    ($module:ident, $library:ident, $($key_size:literal => $cipher:ident),+) => {
        pub mod $module {
            use std::ffi::{CStr, c_int};
            use std::ptr::{NonNull, null, null_mut};

            use $library as library;

            use crate::Work;
            use crate::contender::Contender;

            /// A context with its key set.
            pub struct Context {
                context: NonNull<library::EVP_CIPHER_CTX>,
                sector_size: usize,
            }

            impl Context {
                /// `None` if the library does not have the cipher.
                pub fn new(work: Work) -> Option<Self> {
                    let cipher = match work.key_size {
                        // SAFETY: it takes nothing and returns a pointer to something static.
                        $($key_size => unsafe { library::$cipher() },)+
                        _ => return None,
                    };
                    // SAFETY: it takes nothing.
                    let context = NonNull::new(unsafe { library::EVP_CIPHER_CTX_new() });
                    let context = context.expect("memory for a context");
                    let (key, encrypt) = (work.key(), c_int::from(work.encrypt));
                    // SAFETY: context and cipher are valid, and the key, which is copied, is as
                    // long as the cipher asks for. No engine and no vector may be given.
                    let done = unsafe {
                        library::EVP_CipherInit_ex(
                            context.as_ptr(),
                            cipher,
                            null_mut(),
                            key.as_ptr(),
                            null(),
                            encrypt,
                        )
                    };
                    assert_eq!(done, 1, "the key is taken");
                    Some(Self { context, sector_size: work.sector_size })
                }
            }

            impl Contender for Context {
                fn pass(&mut self, data: &mut [u8]) -> usize {
                    let length = c_int::try_from(self.sector_size).expect("a sector is short");
                    // Vectors count units of 512 bytes, however long a sector is.
                    let numbers = (Work::FIRST_SECTOR..).step_by(self.sector_size / 512);
                    for (sector, number) in data.chunks_exact_mut(self.sector_size).zip(numbers) {
                        let iv = u128::from(number).to_le_bytes();
                        let mut written = 0;
                        let pointer = sector.as_mut_ptr();
                        // SAFETY: the context has its cipher and key, the vector is as long as the
                        // cipher's, and `length` bytes are at `pointer`, for both to use at once:
                        // in place is allowed.
                        let done = unsafe {
                            library::EVP_CipherInit_ex(
                                self.context.as_ptr(),
                                null(),
                                null_mut(),
                                null(),
                                iv.as_ptr(),
                                -1,
                            ) == 1
                                && library::EVP_CipherUpdate(
                                    self.context.as_ptr(),
                                    pointer,
                                    &raw mut written,
                                    pointer,
                                    length,
                                ) == 1
                        };
                        assert!(done && written == length, "a sector is not done");
                    }
                    data.len()
                }
            }

            impl Drop for Context {
                fn drop(&mut self) {
                    // SAFETY: it came from EVP_CIPHER_CTX_new and is used no more.
                    unsafe { library::EVP_CIPHER_CTX_free(self.context.as_ptr()) }
                }
            }

            /// What the library says it is.
            pub fn version() -> String {
                // SAFETY: for 0 (and anything else) it returns a static string.
                let version = unsafe { CStr::from_ptr(library::OpenSSL_version(0)) };
                version.to_string_lossy().into_owned()
            }
        }
    };
}

// There is no AES-128-XTS in AWS-LC.
evp_library!(aws_lc, aws_lc_sys, 64 => EVP_aes_256_xts);
evp_library!(openssl, openssl_sys, 32 => EVP_aes_128_xts, 64 => EVP_aes_256_xts);
